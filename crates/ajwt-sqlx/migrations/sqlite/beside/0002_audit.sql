-- Where the users are the application's.

-- Who changed what: written with each change that is made through KeyAdmin.
CREATE TABLE IF NOT EXISTS ajwt_audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    username TEXT NOT NULL COLLATE BINARY,
    detail TEXT NOT NULL
) STRICT;
