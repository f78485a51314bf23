-- What answers a lab's questions quickly at 100,000 trials: indexes, and summaries that triggers keep; and token use.
-- Comments stand inside the statements, so that SQLite keeps them and `enpire-coord schema` can print them.
DROP INDEX trials_by_bundle;  -- trials_by_policy begins with the same column

CREATE TABLE token_use (                -- one call of a language model by a researcher
    token_use_id INTEGER PRIMARY KEY,   -- counts the calls
    unix_s REAL NOT NULL,               -- when the answer was complete
    researcher TEXT NOT NULL,           -- as in hypotheses
    model TEXT NOT NULL,                -- as its vendor names it
    hypothesis_id INTEGER REFERENCES hypotheses,  -- what came of the call; NULL where nothing did
    input_tokens INTEGER NOT NULL,      -- all of them, also those read from the vendor's cache
    output_tokens INTEGER NOT NULL,     -- all of them, also those of reasoning that nobody saw
    cached_tokens INTEGER NOT NULL,     -- the part of input_tokens that was read from the vendor's cache
    seconds REAL NOT NULL               -- from the question to the complete answer
);

-- Each index holds all that its views read of a trial, so that none of them has to visit the wide rows.
CREATE INDEX trials_by_policy ON trials (
    bundle, (purpose = 'heldout'), purpose, outcome, edge, progress, trial_s, calibration_hash
);
CREATE INDEX trials_by_start ON trials (bundle, start_id, outcome, cause, progress);
CREATE INDEX trials_failed ON trials (bundle, cause, progress, outcome) WHERE outcome = 'failure';
CREATE INDEX trials_invalid ON trials (cause, edge, received_unix_s, outcome) WHERE outcome = 'invalid';
CREATE INDEX trials_reset ON trials (edge, reset_s, reset_tries, cause, trial_s) WHERE reset_tries > 0;
CREATE INDEX trials_by_station ON trials (
    edge, started_unix_s, ended_unix_s, outcome, used, replicated, received_unix_s, wall_trial_s, wall_reset_s,
    trial_s, reset_s
);
CREATE INDEX recordings_by_station ON recordings (edge, replicated, bytes);
CREATE INDEX assignments_by_candidate ON assignments (candidate_id, state);
CREATE INDEX candidates_by_bundle ON candidates (bundle);
CREATE INDEX candidates_by_hypothesis ON candidates (hypothesis_id);
CREATE INDEX decisions_by_candidate ON decisions (candidate_id);
CREATE INDEX decisions_accepted ON decisions (decision_id) WHERE verdict = 'accept';
CREATE INDEX heldout_by_candidate ON heldout (candidate_id, complete, trials);
CREATE INDEX token_use_by_researcher ON token_use (researcher);
CREATE INDEX token_use_by_hypothesis ON token_use (hypothesis_id);

CREATE TABLE tallies (                  -- how often each station succeeded with each policy; a trigger keeps it
    edge TEXT NOT NULL,                 -- the station
    bundle TEXT NOT NULL,               -- the policy
    successes INTEGER NOT NULL,         -- of the valid trials
    trials INTEGER NOT NULL,            -- valid ones
    PRIMARY KEY (edge, bundle)
) WITHOUT ROWID;
CREATE TRIGGER trial_tallied AFTER INSERT ON trials WHEN NEW.outcome != 'invalid' BEGIN
    INSERT INTO tallies (edge, bundle, successes, trials) VALUES (NEW.edge, NEW.bundle, NEW.outcome = 'success', 1)
    ON CONFLICT (edge, bundle) DO UPDATE SET successes = successes + excluded.successes, trials = trials + 1;
END;
INSERT INTO tallies (edge, bundle, successes, trials)
SELECT edge, bundle, SUM(outcome = 'success'), COUNT(*) FROM trials WHERE outcome != 'invalid' GROUP BY edge, bundle;

CREATE TABLE timeline (                 -- trials and decisions as the coordinator heard of them; triggers keep it
    place INTEGER PRIMARY KEY,          -- counts them
    unix_s REAL NOT NULL,               -- when the coordinator had it
    edge TEXT, epoch TEXT, sequence INTEGER,            -- the trial; NULL for a decision
    decision_id INTEGER REFERENCES decisions,           -- the decision; NULL for a trial
    stage TEXT NOT NULL,                -- purpose of the trial, stage of the decision
    outcome TEXT NOT NULL,              -- of the trial, or the verdict of the decision
    incumbent INTEGER REFERENCES candidates,            -- who rules from here on
    successes INTEGER NOT NULL,         -- of its valid trials since it rules, this one included, held-out starts not
    trials INTEGER NOT NULL             -- those trials
);
CREATE TRIGGER trial_on_timeline AFTER INSERT ON trials BEGIN
    INSERT INTO timeline (unix_s, edge, epoch, sequence, stage, outcome, incumbent, successes, trials)
    SELECT NEW.received_unix_s, NEW.edge, NEW.epoch, NEW.sequence, NEW.purpose, NEW.outcome, incumbent,
           COALESCE(successes, 0) + (counts AND NEW.outcome = 'success'), COALESCE(trials, 0) + counts
    FROM (
        SELECT last.*, COALESCE(
            NEW.purpose != 'heldout' AND NEW.outcome != 'invalid'
            AND NEW.bundle = (SELECT bundle FROM candidates WHERE candidate_id = last.incumbent), 0
        ) AS counts
        FROM (SELECT 1) LEFT JOIN (SELECT * FROM timeline ORDER BY place DESC LIMIT 1) AS last
    );
END;
CREATE TRIGGER decision_on_timeline AFTER INSERT ON decisions BEGIN
    INSERT INTO timeline (unix_s, decision_id, stage, outcome, incumbent, successes, trials)
    SELECT NEW.decided_unix_s, NEW.decision_id, NEW.stage, NEW.verdict,
           CASE NEW.verdict WHEN 'accept' THEN NEW.candidate_id ELSE incumbent END,
           CASE NEW.verdict WHEN 'accept' THEN 0 ELSE COALESCE(successes, 0) END,
           CASE NEW.verdict WHEN 'accept' THEN 0 ELSE COALESCE(trials, 0) END
    FROM (SELECT 1) LEFT JOIN (SELECT * FROM timeline ORDER BY place DESC LIMIT 1) AS last;
END;
-- What led to a decision came no later than it, so at one instant trials go before decisions.
INSERT INTO timeline (unix_s, edge, epoch, sequence, decision_id, stage, outcome, incumbent, successes, trials)
WITH happened AS (
    SELECT received_unix_s AS at, 0 AS decides, rowid AS id, edge, epoch, sequence, NULL AS decision_id,
           purpose AS stage, outcome, bundle, NULL AS candidate_id
    FROM trials
    UNION ALL
    SELECT decided_unix_s, 1, decision_id, NULL, NULL, NULL, decision_id, stage, verdict, NULL, candidate_id
    FROM decisions
),
reigned AS (
    SELECT *, SUM(decides AND outcome = 'accept') OVER (ORDER BY at, decides, id) AS reign FROM happened
),
ruled AS (  -- the first row of a reign is the decision that began it
    SELECT *, CASE WHEN reign > 0 THEN FIRST_VALUE(candidate_id) OVER begun END AS incumbent
    FROM reigned WINDOW begun AS (PARTITION BY reign ORDER BY at, decides, id)
),
counted AS (
    SELECT ruled.*, stage != 'heldout' AND outcome != 'invalid' AND ruled.bundle IS candidates.bundle
           AND incumbent IS NOT NULL AND decides = 0 AS counts
    FROM ruled LEFT JOIN candidates ON candidates.candidate_id = incumbent
)
SELECT at, edge, epoch, sequence, decision_id, stage, outcome, incumbent,
       SUM(counts AND outcome = 'success') OVER so_far, SUM(counts) OVER so_far
FROM counted WINDOW so_far AS (PARTITION BY reign ORDER BY at, decides, id)
ORDER BY at, decides, id;
