-- What tells of a station (checks) or of a roll-out is no failure of a policy, and a roll-out's attempts are pooled with
-- nothing: they run under limits of their own.
-- `starts` is the same expression everywhere, or the index would not serve it.
DROP VIEW success_by_policy;
DROP VIEW incumbents;
DROP VIEW failing_starts;
DROP VIEW failure_modes;
DROP VIEW recordings_to_watch;
DROP TRIGGER trial_on_timeline;
DROP INDEX trials_by_policy;
CREATE INDEX trials_by_policy ON trials (
    bundle,
    (CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check'
            WHEN 'canary' THEN 'roll-out' WHEN 'probation' THEN 'roll-out' WHEN 'shadow' THEN 'roll-out'
            ELSE 'other' END),
    purpose, outcome, edge, progress, trial_s, calibration_hash
);
UPDATE schema_comments SET comment = comment || ', ''canary'', ''probation'', ''shadow'' (of a roll-out)'
WHERE name = 'purpose' AND part = 'trials';

CREATE VIEW success_by_policy (         -- how often each policy succeeded; held-out, audit, checks and roll-outs apart
    bundle,                             -- sha256 of the policy's archive
    starts,                             -- 'held-out', 'audit', 'check' (whether a station is to be believed),
                                        -- 'roll-out' (what push-policy had stations try), or
                                        -- 'other': those that also chose policies, so they lean high
    task, policy,                       -- what it does, and the folder that it was made from
    candidate_id,                       -- the newest candidate that is this bundle
    state,                              -- of that candidate: 'accepted', 'rejected', ...
    sentence,                           -- the hypothesis behind it
    params,                             -- JSON object: every parameter and idea with its value
    successes,                          -- of its valid trials
    trials,                             -- valid ones
    percent,                            -- success
    low_percent, high_percent,          -- Wilson's 95 % interval of it
    invalid,                            -- trials that the harness spoiled; not in the counts before
    progress,                           -- mean over valid trials, [0, 1]
    trial_s,                            -- mean station time of a valid trial
    stations,                           -- where it ran
    calibrations                        -- how many calibrations it ran on
) AS
WITH counted AS (
    SELECT
        bundle,
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check'
            WHEN 'canary' THEN 'roll-out' WHEN 'probation' THEN 'roll-out' WHEN 'shadow' THEN 'roll-out'
            ELSE 'other' END
            AS starts,
        SUM(outcome = 'success') AS k, SUM(outcome != 'invalid') AS n, SUM(outcome = 'invalid') AS invalid,
        AVG(CASE WHEN outcome != 'invalid' THEN progress END) AS progress,
        AVG(CASE WHEN outcome != 'invalid' THEN trial_s END) AS trial_s,
        GROUP_CONCAT(DISTINCT edge) AS stations, COUNT(DISTINCT calibration_hash) AS calibrations
    FROM trials GROUP BY
        bundle,
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check'
            WHEN 'canary' THEN 'roll-out' WHEN 'probation' THEN 'roll-out' WHEN 'shadow' THEN 'roll-out'
            ELSE 'other' END
)
SELECT counted.bundle, starts, bundles.task, bundles.policy,
       candidate_id, state, sentence, params, k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       invalid, ROUND(progress, 3), ROUND(counted.trial_s, 1), stations, calibrations
FROM counted
LEFT JOIN bundles ON bundles.bundle = counted.bundle
LEFT JOIN candidates
    ON candidate_id = (SELECT MAX(candidate_id) FROM candidates AS newest WHERE newest.bundle = counted.bundle)
LEFT JOIN hypotheses ON hypotheses.hypothesis_id = candidates.hypothesis_id;

CREATE VIEW incumbents (                -- the policies that were the best known one, in the order in which they ruled
    generation,                         -- 0 is the seed policy
    candidate_id,                       -- who it is
    bundle,                             -- sha256 of the policy's archive
    sentence,                           -- the hypothesis that brought it
    changes,                            -- JSON object: what it changes against the one before
    rules,                              -- 1 for the one that rules now
    from_unix_s,                        -- when it was accepted
    to_unix_s,                          -- when the next one was; NULL while it rules
    minute,                             -- when it was accepted, from the start of the first campaign
    trials_so_far,                      -- of the campaign, when it was accepted
    pairs, wins, losses,                -- at the gate that accepted it
    gain_points,                        -- success at the gate minus that of the one before, percentage points,
    gain_low, gain_high,                -- its 95 % interval from both Wilson intervals (Newcombe 1998, method 10)
    successes,                          -- of its valid trials to this day, but for held-out, audit, checks, roll-outs
    trials,                             -- those trials; they chose it, so they lean high
    heldout_successes,                  -- of its largest measurement on held-out starts, a complete one first
    heldout_trials,                     -- of that measurement; NULL where there is none
    heldout_percent,                    -- success in it
    heldout_low, heldout_high,          -- Wilson's 95 % interval of it
    heldout_invalid,                    -- of heldout_trials, failures because they could not be judged
    audit_successes,                    -- of its last measurement on audit starts, a complete one first
    audit_trials,                       -- of that measurement; NULL where there is none
    audit_percent,                      -- success in it
    audit_low, audit_high,              -- its exact 95 % interval (Clopper and Pearson 1934)
    audit_invalid                       -- of audit_trials, failures because they could not be judged
) AS
WITH accepted AS (
    SELECT ROW_NUMBER() OVER (ORDER BY decision_id) - 1 AS generation,
           LEAD(decided_unix_s) OVER (ORDER BY decision_id) AS to_unix_s, decisions.*,
           candidate_successes AS k1, candidate_trials AS n1, incumbent_successes AS k0, incumbent_trials AS n0
    FROM decisions WHERE verdict = 'accept'
),
bounded AS (
    SELECT accepted.*, 1.0 * k1 / n1 AS p1, 1.0 * k0 / n0 AS p0,
           (k1 + 1.920729 - 1.959964 * SQRT(1.0 * k1 * (n1 - k1) / n1 + 0.960365)) / (n1 + 3.841459) AS low1,
           (k1 + 1.920729 + 1.959964 * SQRT(1.0 * k1 * (n1 - k1) / n1 + 0.960365)) / (n1 + 3.841459) AS high1,
           (k0 + 1.920729 - 1.959964 * SQRT(1.0 * k0 * (n0 - k0) / n0 + 0.960365)) / (n0 + 3.841459) AS low0,
           (k0 + 1.920729 + 1.959964 * SQRT(1.0 * k0 * (n0 - k0) / n0 + 0.960365)) / (n0 + 3.841459) AS high0
    FROM accepted
)
SELECT generation, bounded.candidate_id, candidates.bundle, sentence, changes, to_unix_s IS NULL, decided_unix_s,
       to_unix_s, ROUND(MAX(0, decided_unix_s - (SELECT MIN(started_unix_s) FROM campaigns)) / 60, 1), trials_so_far,
       pairs, wins, losses, ROUND(gain_points, 1) + 0.0,
       ROUND(100 * (p1 - p0 - SQRT((p1 - low1) * (p1 - low1) + (high0 - p0) * (high0 - p0))), 1) + 0.0,
       ROUND(100 * (p1 - p0 + SQRT((high1 - p1) * (high1 - p1) + (p0 - low0) * (p0 - low0))), 1) + 0.0,
       (SELECT SUM(outcome = 'success') FROM trials
        WHERE trials.bundle = candidates.bundle AND
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check'
            WHEN 'canary' THEN 'roll-out' WHEN 'probation' THEN 'roll-out' WHEN 'shadow' THEN 'roll-out'
            ELSE 'other' END
            = 'other'),
       (SELECT SUM(outcome != 'invalid') FROM trials
        WHERE trials.bundle = candidates.bundle AND
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check'
            WHEN 'canary' THEN 'roll-out' WHEN 'probation' THEN 'roll-out' WHEN 'shadow' THEN 'roll-out'
            ELSE 'other' END
            = 'other'),
       k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       measured.invalid, audits.successes, audits.trials, ROUND(100.0 * audits.successes / audits.trials, 1),
       ROUND(100 * audits.low, 1), ROUND(100 * audits.high, 1), audits.invalid
FROM bounded
JOIN candidates ON candidates.candidate_id = bounded.candidate_id
JOIN hypotheses ON hypotheses.hypothesis_id = candidates.hypothesis_id
LEFT JOIN (SELECT heldout_id, successes AS k, trials AS n, invalid FROM heldout) AS measured ON heldout_id = (
    SELECT heldout_id FROM heldout AS mine WHERE mine.candidate_id = bounded.candidate_id
    ORDER BY complete DESC, mine.trials DESC, heldout_id DESC LIMIT 1
)
LEFT JOIN audits ON audit_id = (
    SELECT audit_id FROM audits AS mine WHERE mine.candidate_id = bounded.candidate_id
    ORDER BY complete DESC, audit_id DESC LIMIT 1
);

CREATE VIEW failing_starts (            -- the initial states from which the policy that rules has failed
    start_id,                           -- the initial state
    successes,                          -- of the valid trials
    trials,                             -- valid ones
    invalid,                            -- trials that the harness spoiled
    progress,                           -- mean over valid trials, [0, 1]
    causes                              -- of its failures and invalid trials
) AS
SELECT start_id, SUM(outcome = 'success'), SUM(outcome != 'invalid'), SUM(outcome = 'invalid'),
       ROUND(AVG(CASE WHEN outcome != 'invalid' THEN progress END), 3), GROUP_CONCAT(DISTINCT NULLIF(cause, ''))
FROM trials WHERE bundle = (
    SELECT bundle FROM candidates WHERE candidate_id = (
        SELECT candidate_id FROM decisions WHERE verdict = 'accept' ORDER BY decision_id DESC LIMIT 1
    )
)
AND purpose NOT IN ('check', 'canary', 'probation', 'shadow')
GROUP BY start_id HAVING SUM(outcome = 'failure') > 0;

CREATE VIEW failure_modes (             -- how each policy failed
    bundle,                             -- sha256 of the policy's archive
    cause,                              -- the failure class
    trials,                             -- that ended so
    percent,                            -- of the policy's failures
    progress                            -- mean, [0, 1]
) AS
SELECT bundle, cause, COUNT(*), ROUND(100.0 * COUNT(*) / SUM(COUNT(*)) OVER (PARTITION BY bundle), 1),
       ROUND(AVG(progress), 3)
FROM trials WHERE outcome = 'failure' AND purpose NOT IN ('check', 'canary', 'probation', 'shadow')
GROUP BY bundle, cause;

CREATE VIEW recordings_to_watch (       -- what went wrong under the policy that rules, first one of each cause
    place,                              -- 1 is to be watched first: failures before invalid trials, common causes first
    outcome, cause,                     -- how the trial ended
    of_cause,                           -- how many of that policy's trials ended so
    edge, epoch, sequence,              -- the trial
    start_id,                           -- the initial state
    progress,                           -- [0, 1]
    detail,                             -- what the judge said
    file,                               -- the recording under the folder of the run; NULL while it has not come
    recording                           -- its sha256
) AS
WITH ranked AS (
    SELECT trials.rowid AS id, outcome, cause, COUNT(*) OVER (PARTITION BY outcome, cause) AS of_cause,
           ROW_NUMBER() OVER (PARTITION BY outcome, cause ORDER BY progress, trials.rowid) AS nth
    FROM trials WHERE outcome != 'success' AND cause != 'stopped'
    AND purpose NOT IN ('check', 'canary', 'probation', 'shadow') AND bundle = (
        SELECT bundle FROM candidates WHERE candidate_id = (
            SELECT candidate_id FROM decisions WHERE verdict = 'accept' ORDER BY decision_id DESC LIMIT 1
        )
    )
)
SELECT ROW_NUMBER() OVER (ORDER BY nth, ranked.outcome, of_cause DESC, ranked.cause), ranked.outcome, ranked.cause,
       of_cause, trials.edge, epoch, sequence, start_id, ROUND(trials.progress, 3), detail, file, recording
FROM ranked JOIN trials ON trials.rowid = ranked.id LEFT JOIN recordings ON sha256 = recording
WHERE recording != '';

CREATE TRIGGER trial_on_timeline AFTER INSERT ON trials BEGIN
    INSERT INTO timeline (unix_s, edge, epoch, sequence, stage, outcome, incumbent, successes, trials)
    SELECT NEW.received_unix_s, NEW.edge, NEW.epoch, NEW.sequence, NEW.purpose, NEW.outcome, incumbent,
           COALESCE(successes, 0) + (counts AND NEW.outcome = 'success'), COALESCE(trials, 0) + counts
    FROM (
        SELECT last.*, COALESCE(
            NEW.purpose NOT IN ('heldout', 'audit', 'check', 'canary', 'probation', 'shadow')
            AND NEW.outcome != 'invalid'
            AND NEW.bundle = (SELECT bundle FROM candidates WHERE candidate_id = last.incumbent), 0
        ) AS counts
        FROM (SELECT 1) LEFT JOIN (SELECT * FROM timeline ORDER BY place DESC LIMIT 1) AS last
    );
END;
-- The running counts of the timeline as the new trigger would have kept them.
UPDATE timeline SET successes = kept.k, trials = kept.n FROM (
    SELECT place, SUM(counts AND outcome = 'success') OVER so_far AS k, SUM(counts) OVER so_far AS n FROM (
        SELECT place, timeline.outcome,
               SUM(decision_id IS NOT NULL AND timeline.outcome = 'accept') OVER (ORDER BY place) AS reign,
               COALESCE(
                   decision_id IS NULL AND stage NOT IN ('heldout', 'audit', 'check', 'canary', 'probation', 'shadow')
                   AND timeline.outcome != 'invalid'
                   AND trials.bundle = candidates.bundle, 0
               ) AS counts
        FROM timeline
        LEFT JOIN trials ON trials.edge = timeline.edge AND trials.epoch = timeline.epoch
            AND trials.sequence = timeline.sequence
        LEFT JOIN candidates ON candidate_id = incumbent
    ) WINDOW so_far AS (PARTITION BY reign ORDER BY place)
) AS kept WHERE kept.place = timeline.place AND (kept.k != timeline.successes OR kept.n != timeline.trials);

-- A person may revoke what a campaign tests.
CREATE TABLE campaign_calls (           -- every call that the campaign took, in order, with what it gave in `chain`
    seq INTEGER PRIMARY KEY,            -- counts them from 1
    unix_s REAL NOT NULL,               -- when, as the campaign was told
    call TEXT NOT NULL                  -- begin, propose, play, next_work, record, expire, station or revoke
        CHECK (call IN ('begin', 'propose', 'play', 'next_work', 'record', 'expire', 'station', 'revoke')),
    payload TEXT NOT NULL,              -- JSON object: its arguments; of a trial its name, [edge, epoch, sequence]
    chain TEXT NOT NULL                 -- sha256 of the chain before, the call and the events and work it gave, hex
) STRICT;
INSERT INTO campaign_calls SELECT * FROM campaign_log;
DROP TABLE campaign_log;
ALTER TABLE campaign_calls RENAME TO campaign_log;
