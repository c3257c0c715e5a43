"""What people would use instead of syncd, each in a small file of its own.

Every peer verifies the signature, commits each delivery with WAL and `synchronous=FULL` before it
answers, and stores the same rows with the same statements (the folder sql).
"""
