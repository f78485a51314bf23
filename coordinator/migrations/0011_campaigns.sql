-- Campaigns that survive a kill, researchers that merge, play and are refused, and measurements on audit starts.
CREATE TABLE campaign_log (             -- every call that the campaign took, in order, with what it gave in `chain`
    seq INTEGER PRIMARY KEY,            -- counts them from 1
    unix_s REAL NOT NULL,               -- when, as the campaign was told
    call TEXT NOT NULL                  -- begin, propose, play, next_work, record, expire or station
        CHECK (call IN ('begin', 'propose', 'play', 'next_work', 'record', 'expire', 'station')),
    payload TEXT NOT NULL,              -- JSON object: its arguments; of a trial its name, [edge, epoch, sequence]
    chain TEXT NOT NULL                 -- sha256 of the chain before, the call and the events and work it gave, hex
) STRICT;
CREATE TABLE campaign_sessions (        -- processes that have run the campaign, one after the other
    session_id INTEGER PRIMARY KEY,     -- counts them
    began_unix_s REAL NOT NULL,         -- when it began or resumed the campaign
    ran_s REAL NOT NULL                 -- how long stations were ready in it so far; the sum counts against the budget
) STRICT;
CREATE TABLE refusals (                 -- proposals that were not tested
    refusal_id INTEGER PRIMARY KEY,     -- counts them
    researcher TEXT NOT NULL,           -- who proposed it
    kind TEXT NOT NULL,                 -- of change
    sentence TEXT NOT NULL,             -- what was claimed
    reason TEXT NOT NULL,               -- why it was not tested, in words
    unix_s REAL NOT NULL                -- when
) STRICT;
CREATE TABLE plays (                    -- attempts that a researcher asked for to learn from; they decide nothing
    play_id INTEGER PRIMARY KEY,        -- counts them
    researcher TEXT NOT NULL,           -- who asked for them
    candidate_id INTEGER NOT NULL REFERENCES candidates, -- the incumbent whose policy they vary
    bundle TEXT NOT NULL REFERENCES bundles, -- what runs
    changes TEXT NOT NULL,              -- JSON object: parameters that differ from the incumbent's
    files TEXT NOT NULL,                -- JSON list: names of the files that differ
    attempts INTEGER NOT NULL,          -- how many
    created_unix_s REAL NOT NULL        -- when
) STRICT;
CREATE TABLE merges (                   -- what a candidate is made of beside the incumbent
    candidate_id INTEGER NOT NULL REFERENCES candidates, -- the candidate
    merged_candidate_id INTEGER NOT NULL REFERENCES candidates, -- whose change it took over
    PRIMARY KEY (candidate_id, merged_candidate_id)
) STRICT;
CREATE TABLE audits (                   -- measurements of the final incumbent on audit starts, which chose nothing
    audit_id INTEGER PRIMARY KEY,       -- counts them
    candidate_id INTEGER NOT NULL REFERENCES candidates, -- who was measured
    successes INTEGER NOT NULL,         -- of its valid trials
    trials INTEGER NOT NULL,            -- valid ones
    low REAL NOT NULL,                  -- lower end of the exact 95 % interval (Clopper and Pearson 1934), [0, 1]
    high REAL NOT NULL,                 -- its upper end
    complete INTEGER NOT NULL,          -- 0 when it was stopped
    ended_unix_s REAL NOT NULL          -- when
) STRICT;
ALTER TABLE hypotheses ADD COLUMN files TEXT NOT NULL DEFAULT '[]' /* JSON list: names of the files that it changes */;
ALTER TABLE hypotheses ADD COLUMN not_worse INTEGER NOT NULL DEFAULT 0 /* 1 for a simplification, which need not be better */;
ALTER TABLE campaigns ADD COLUMN options TEXT NOT NULL DEFAULT '{}' /* JSON object: what else it was begun with */;
UPDATE schema_comments
SET comment = '''check'' (whether the station is to be believed), ''screen'', ''gate'', ''bank'' (once-failed states), '
    || '''heldout'', ''audit'', ''baseline'', ''play'''
WHERE name = 'purpose' AND part IN ('assignments', 'trials');
UPDATE schema_comments
SET comment = 'of the bet that the candidate is better; 1 / alpha accepts it; of a simplification, that it is not worse'
WHERE part = 'decisions' AND name = 'wealth';
