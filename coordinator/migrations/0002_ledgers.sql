-- Which ledger a trial comes from, whose key signed it, and which of it a backup holds.
CREATE TABLE ledgers (
    edge TEXT NOT NULL, epoch TEXT NOT NULL,
    public_key TEXT NOT NULL,           -- Ed25519, hex; the first one seen stays
    first_seen_unix_s REAL NOT NULL,
    PRIMARY KEY (edge, epoch)
);
CREATE TABLE backups (
    backup_id INTEGER PRIMARY KEY, folder TEXT NOT NULL, trials INTEGER NOT NULL, recordings INTEGER NOT NULL,
    bytes INTEGER NOT NULL, made_unix_s REAL NOT NULL
);
ALTER TABLE trials ADD COLUMN previous_chain TEXT NOT NULL DEFAULT '';  -- of the trial before, hex
ALTER TABLE trials ADD COLUMN chain TEXT NOT NULL DEFAULT '';           -- sha256(previous chain + sha256(body)), hex
ALTER TABLE trials ADD COLUMN signature BLOB;                           -- Ed25519 over the chain
ALTER TABLE trials ADD COLUMN replicated INTEGER NOT NULL DEFAULT 0;    -- 1 once a backup holds it
ALTER TABLE recordings ADD COLUMN replicated INTEGER NOT NULL DEFAULT 0;
CREATE INDEX trials_by_chain ON trials (edge, epoch, previous_chain);
CREATE INDEX trials_by_recording ON trials (recording);
