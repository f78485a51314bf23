-- Which machines may call themselves by an edge's name.
CREATE TABLE enrolments (               -- tickets, and what the machines that came with them asked for
    enrolment_id INTEGER PRIMARY KEY,   -- counts them
    edge TEXT NOT NULL,                 -- the name that the ticket is for
    ticket_sha256 TEXT NOT NULL UNIQUE, -- of the ticket, hex; the ticket itself is nowhere here
    made_unix_s REAL NOT NULL,          -- when the ticket was made
    ticket_until_unix_s REAL NOT NULL,  -- when it ends
    state TEXT NOT NULL                 -- ticket: unused; waiting: for a person; approved; denied; revoked; replaced
        CHECK (state IN ('ticket', 'waiting', 'approved', 'denied', 'revoked', 'replaced')),
    asked_unix_s REAL,                  -- when a machine first came with it; NULL before
    decided_unix_s REAL,                -- when a person, or a newer enrolment, decided on it; NULL before
    tls_key TEXT NOT NULL DEFAULT '',   -- the machine's public TLS key, DER, hex; never another in this row
    ledger_key TEXT NOT NULL DEFAULT '', -- Ed25519, hex: its trials are signed with this one
    fingerprint TEXT NOT NULL DEFAULT '', -- six words over name and both keys
    certificate TEXT NOT NULL DEFAULT '', -- the newest one, PEM
    certificate_until_unix_s REAL       -- when that one ends; NULL before the first
) STRICT;
CREATE INDEX enrolments_by_edge ON enrolments (edge, state);
CREATE TABLE edge_denied (              -- names that are answered nothing until a machine is enrolled anew
    edge TEXT PRIMARY KEY,              -- the name
    why TEXT NOT NULL,                  -- in words
    since_unix_s REAL NOT NULL          -- when it was revoked
) STRICT;
CREATE TABLE listening (                -- where the coordinator can be reached, one row
    one INTEGER PRIMARY KEY CHECK (one = 1), -- always 1
    endpoint TEXT NOT NULL,             -- for edges with a certificate, e.g. tls/lab.example:7447
    door TEXT NOT NULL                  -- for those that want one
) STRICT;
