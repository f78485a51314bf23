-- How policies come into force on stations, as people ordered and as stations say.
CREATE TABLE pushes (                   -- what a person ordered
    push_id INTEGER PRIMARY KEY,        -- counts them
    unix_s REAL NOT NULL,               -- when
    what TEXT NOT NULL                  -- push, rollback, revoke
        CHECK (what IN ('push', 'rollback', 'revoke')),
    bundle TEXT NOT NULL,               -- the policy; empty for a roll-back to whatever was good before
    task TEXT NOT NULL,                 -- what it does; empty for a revocation
    stage TEXT NOT NULL,                -- how far it may go: shadow, canary or active; of a revocation when it must stop
    edges TEXT NOT NULL,                -- JSON list of the stations that were told
    signers TEXT NOT NULL,              -- JSON list of key ids
    seed INTEGER                        -- draws the starts of canary and probation; NULL where there are none
) STRICT;
CREATE TABLE rollouts (                 -- how far a policy has come on a station, as the station said last
    edge TEXT NOT NULL,                 -- the station
    bundle TEXT NOT NULL,               -- the policy
    number INTEGER NOT NULL,            -- of the order that the station followed last; rises with every order
    state TEXT NOT NULL,                -- offered, fetched, verified, staged, shadow, canary, probation, active, superseded,
                                        -- rolled_back, revoked, rejected, or denied by the station itself
    reason TEXT NOT NULL,               -- why it is in that state, in words
    gates TEXT NOT NULL,                -- JSON object: what each gate said last, its values beside their thresholds
    since_unix_s REAL NOT NULL,         -- by the station's clock
    seen_unix_s REAL NOT NULL,          -- when the station said so here
    PRIMARY KEY (edge, bundle)
) STRICT;
