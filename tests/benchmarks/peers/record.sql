-- One delivery in one transaction. The benchmark replaces the names in braces by the statements of
-- the folder sql. SQLite's shell has no variables, but its parameters are a table.
BEGIN IMMEDIATE;
INSERT INTO temp.sqlite_parameters VALUES (':body', readfile(:file));
INSERT INTO temp.sqlite_parameters
SELECT column1, json_extract(CAST(:body AS TEXT), column2)
FROM (VALUES (':event_id', '$.event.uuid'), (':event_at', '$.event.timestamp'),
             (':action', '$.event.action'), (':variant_id', '$.data.id'),
             (':item_id', '$.data.item'), (':availability', '$.data.availability'));
CREATE TEMP TABLE known AS {find};
INSERT INTO temp.sqlite_parameters
SELECT ':outcome', outcome FROM known UNION ALL SELECT ':old_availability', old_availability
FROM known UNION ALL SELECT ':old_sellable', old_sellable FROM known;
{delivery};
UPDATE temp.sqlite_parameters SET value = 'duplicate' WHERE key = ':outcome' AND changes() = 0;
{variant};
{change};
{refresh};
COMMIT;
SELECT json_object('outcome', :outcome);
