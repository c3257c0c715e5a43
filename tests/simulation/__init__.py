"""The whole system in one thread and in virtual time: real rules, real SQLite, simulated world."""
