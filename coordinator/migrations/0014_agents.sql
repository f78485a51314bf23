-- What each call of a model cost, by kind of token and in money; and trials on audit starts and checks of stations,
-- which choose no policy, are pooled with nothing.
-- `starts` is the same expression everywhere, or the index would not serve it.
ALTER TABLE token_use ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE token_use ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE token_use ADD COLUMN other_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE token_use ADD COLUMN guessed_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE token_use ADD COLUMN nano_usd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE token_use ADD COLUMN ended TEXT NOT NULL DEFAULT 'complete';
INSERT INTO schema_comments (part, name, comment) VALUES
    ('token_use', 'cache_write_tokens', 'the part of input_tokens that was written to the vendor''s cache'),
    ('token_use', 'reasoning_tokens', 'the part of output_tokens that nobody saw'),
    ('token_use', 'other_tokens', 'the part of output_tokens whose kind the vendor does not say'),
    ('token_use', 'guessed_tokens', 'the part of all of them that no answer told of: it broke off'),
    ('token_use', 'nano_usd', 'its price by the table of prices, in billionths of a dollar'),
    ('token_use', 'ended', '''complete'', ''broken off'', ''agent gone'', ''silent'', ''failed'', ''asked again''');
UPDATE schema_comments SET comment = comment || ', ''transcript'' (of an agent)'
WHERE part = 'search' AND name = 'source';

DROP VIEW milestones;
DROP VIEW pass_rates;
DROP VIEW success_by_policy;
DROP VIEW incumbents;
DROP VIEW researcher_cost;
DROP TRIGGER trial_on_timeline;
DROP INDEX trials_by_policy;
CREATE INDEX audits_by_candidate ON audits (candidate_id, complete);
CREATE INDEX trials_by_policy ON trials (
    bundle,
    (CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check' ELSE 'other' END),
    purpose, outcome, edge, progress, trial_s, calibration_hash
);

CREATE VIEW success_by_policy (         -- how often each policy succeeded; held-out, audit and checks apart
    bundle,                             -- sha256 of the policy's archive
    starts,                             -- 'held-out', 'audit', 'check' (whether a station is to be believed), or
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
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check' ELSE 'other' END
            AS starts,
        SUM(outcome = 'success') AS k, SUM(outcome != 'invalid') AS n, SUM(outcome = 'invalid') AS invalid,
        AVG(CASE WHEN outcome != 'invalid' THEN progress END) AS progress,
        AVG(CASE WHEN outcome != 'invalid' THEN trial_s END) AS trial_s,
        GROUP_CONCAT(DISTINCT edge) AS stations, COUNT(DISTINCT calibration_hash) AS calibrations
    FROM trials GROUP BY
        bundle,
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check' ELSE 'other' END
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
    successes,                          -- of its valid trials to this day, but for held-out, audit and checks
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
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check' ELSE 'other' END
            = 'other'),
       (SELECT SUM(outcome != 'invalid') FROM trials
        WHERE trials.bundle = candidates.bundle AND
        CASE purpose WHEN 'heldout' THEN 'held-out' WHEN 'audit' THEN 'audit' WHEN 'check' THEN 'check' ELSE 'other' END
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

CREATE VIEW milestones (                -- what it took to get somewhere; one row each that was reached
    what,                               -- '95 % on held-out starts', '99 % on held-out starts', 'after 128 trials'
    minute,                             -- wall time from the start of the first campaign
    trials,                             -- that had ended by then, invalid ones too
    station_minutes,                    -- of the stations' own clocks in them, resets too
    clock_minutes,                      -- of the one station's own clock that had the most of it
    tokens,                             -- of language models by then, in and out
    candidate_id,                       -- the policy that was measured, or that ruled
    starts,                             -- 'held-out', or 'other', which chose it, so that they lean high
    successes, valid_trials,            -- of that policy, whenever they were measured
    percent,                            -- success in them
    low_percent, high_percent           -- Wilson's 95 % interval of it
) AS
WITH wanted (percent) AS (VALUES (95), (99)),
measured AS (
    SELECT wanted.percent || ' % on held-out starts' AS what, ended_unix_s AS at, candidate_id, 'held-out' AS starts,
           successes AS k, trials AS n
    FROM wanted JOIN heldout ON heldout_id = (
        SELECT heldout_id FROM heldout WHERE complete = 1 AND 100 * successes >= wanted.percent * trials
        ORDER BY ended_unix_s, heldout_id LIMIT 1
    )
),
after (at) AS (SELECT ended_unix_s FROM trials ORDER BY ended_unix_s LIMIT 1 OFFSET 127),
ruled AS (
    SELECT 'after 128 trials' AS what, at, candidate_id,
           CASE WHEN heldout_trials > 0 THEN 'held-out' ELSE 'other' END AS starts,
           CASE WHEN heldout_trials > 0 THEN heldout_successes ELSE successes END AS k,
           CASE WHEN heldout_trials > 0 THEN heldout_trials ELSE trials END AS n
    FROM after JOIN (
        SELECT * FROM incumbents WHERE from_unix_s <= (SELECT at FROM after) ORDER BY generation DESC LIMIT 1
    )
),
reached AS (SELECT * FROM measured UNION ALL SELECT * FROM ruled)
SELECT what, ROUND(MAX(0, at - (SELECT MIN(started_unix_s) FROM campaigns)) / 60, 1),
       (SELECT COUNT(*) FROM trials WHERE ended_unix_s <= at),
       (SELECT ROUND(SUM(reset_s + trial_s) / 60, 1) FROM trials WHERE ended_unix_s <= at),
       (SELECT ROUND(MAX(mine) / 60, 1) FROM (
           SELECT SUM(reset_s + trial_s) AS mine FROM trials WHERE ended_unix_s <= at GROUP BY edge
       )),
       (SELECT COALESCE(SUM(input_tokens + output_tokens), 0) FROM token_use WHERE unix_s <= at),
       candidate_id, starts, k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1)
FROM reached;

CREATE VIEW pass_rates (                -- how often at least one of several independent tries of a policy succeeds
    bundle,                             -- sha256 of the policy's archive
    starts,                             -- 'held-out', 'audit', 'check' (whether a station is to be believed), or
                                        -- 'other': those that also chose policies, so they lean high
    successes, trials,                  -- of its valid trials
    pass_1,                             -- percent; of one try
    pass_8                              -- percent; of eight (Chen et al. 2021, unbiased); NULL below eight trials
) AS
WITH counted AS (
    SELECT bundle, starts, successes, trials, trials - successes AS f, 1.0 * trials AS n FROM success_by_policy
)
SELECT bundle, starts, successes, trials, ROUND(100.0 * successes / n, 1),
       CASE WHEN trials < 8 THEN NULL WHEN f < 8 THEN 100.0 ELSE ROUND(100 * (
           1 - f / n * (f - 1) / (n - 1) * (f - 2) / (n - 2) * (f - 3) / (n - 3)
             * (f - 4) / (n - 4) * (f - 5) / (n - 5) * (f - 6) / (n - 6) * (f - 7) / (n - 7)
       ), 1) END
FROM counted;

CREATE VIEW researcher_cost (           -- what each researcher's ideas cost in tokens, and what they gained
    researcher,                         -- as in hypotheses and token_use; of an agent its lane
    models,                             -- that it called
    ideas,                              -- candidates that it made, the seed apart
    accepted,                           -- of them
    gain_points,                        -- of the accepted ones, summed
    input_tokens, output_tokens,        -- of all its calls, also of those that nothing came of
    cached_tokens,                      -- the part of input_tokens that was read from the vendor's cache
    tokens,                             -- in and out
    tokens_per_accept,                  -- NULL where nothing was accepted
    tokens_per_point,                   -- of gain; NULL where there is none
    model_minutes,                      -- waited for answers
    calls,                              -- of models
    fresh_tokens,                       -- the part of input_tokens that no cache had to do with
    cache_write_tokens,                 -- the part of input_tokens that was written to the vendor's cache
    reasoning_tokens,                   -- the part of output_tokens that nobody saw
    other_tokens,                       -- the part of output_tokens whose kind the vendor does not say
    guessed_tokens,                     -- the part of all of them that no answer told of: it broke off
    usd,                                -- what they cost, dollars
    usd_per_accept                      -- NULL where nothing was accepted
) AS
WITH tried AS (
    SELECT researcher, SUM(kind != 'seed') AS ideas, SUM(kind != 'seed' AND verdict IS 'accept') AS accepted,
           SUM(CASE WHEN kind != 'seed' AND verdict = 'accept' THEN gain_points ELSE 0 END) AS gain_points
    FROM hypotheses
    JOIN candidates USING (hypothesis_id)
    LEFT JOIN decisions ON decisions.candidate_id = candidates.candidate_id
    GROUP BY researcher
),
spent AS (
    SELECT researcher, GROUP_CONCAT(DISTINCT model) AS models, SUM(input_tokens) AS input_tokens,
           SUM(output_tokens) AS output_tokens, SUM(cached_tokens) AS cached_tokens, SUM(seconds) AS seconds,
           COUNT(*) AS calls, SUM(cache_write_tokens) AS cache_write_tokens,
           SUM(reasoning_tokens) AS reasoning_tokens, SUM(other_tokens) AS other_tokens,
           SUM(guessed_tokens) AS guessed_tokens, SUM(nano_usd) / 1e9 AS usd
    FROM token_use GROUP BY researcher
),
everybody AS (SELECT researcher FROM tried UNION SELECT researcher FROM spent)
SELECT researcher, models, COALESCE(ideas, 0), COALESCE(accepted, 0), ROUND(COALESCE(gain_points, 0), 1),
       COALESCE(input_tokens, 0), COALESCE(output_tokens, 0), COALESCE(cached_tokens, 0),
       COALESCE(input_tokens + output_tokens, 0),
       ROUND(COALESCE(input_tokens + output_tokens, 0) / NULLIF(1.0 * accepted, 0)),
       ROUND(COALESCE(input_tokens + output_tokens, 0) / NULLIF(MAX(gain_points, 0), 0)),
       ROUND(COALESCE(seconds, 0) / 60, 1), COALESCE(calls, 0),
       COALESCE(input_tokens - cached_tokens - cache_write_tokens, 0), COALESCE(cache_write_tokens, 0),
       COALESCE(reasoning_tokens, 0), COALESCE(other_tokens, 0), COALESCE(guessed_tokens, 0),
       ROUND(COALESCE(usd, 0), 6), ROUND(COALESCE(usd, 0) / NULLIF(1.0 * accepted, 0), 6)
FROM everybody LEFT JOIN tried USING (researcher) LEFT JOIN spent USING (researcher);

CREATE VIEW hypothesis_cost (           -- what each hypothesis cost in tokens and money, and what it gained
    researcher,                         -- who had it; of an agent its lane
    hypothesis_id,                      -- NULL for the calls that nothing came of
    sentence,                           -- the hypothesis
    verdict,                            -- 'accept', 'reject', 'inconclusive', 'superseded'; 'open' while it is tested
    gain_points,                        -- success minus the incumbent's when it was decided, percentage points
    calls,                              -- of models
    fresh_tokens,                       -- of input, that no cache had to do with
    cached_tokens,                      -- of input, read from the vendor's cache
    cache_write_tokens,                 -- of input, written to it
    output_tokens,                      -- all of them
    reasoning_tokens,                   -- the part of output_tokens that nobody saw
    other_tokens,                       -- the part of output_tokens whose kind the vendor does not say
    guessed_tokens,                     -- the part of all tokens that no answer told of: it broke off
    tokens,                             -- in and out
    usd,                                -- what they cost, dollars
    model_minutes                       -- waited for answers
) AS
WITH spent AS (
    SELECT researcher, hypothesis_id, COUNT(*) AS calls, SUM(input_tokens) AS i, SUM(cached_tokens) AS r,
           SUM(cache_write_tokens) AS w, SUM(output_tokens) AS o, SUM(reasoning_tokens) AS t, SUM(other_tokens) AS x,
           SUM(guessed_tokens) AS g, SUM(nano_usd) AS nano_usd, SUM(seconds) AS seconds
    FROM token_use GROUP BY researcher, hypothesis_id
)
SELECT spent.researcher, spent.hypothesis_id, sentence,
       CASE WHEN spent.hypothesis_id IS NOT NULL THEN COALESCE(verdict, 'open') END, ROUND(gain_points, 1) + 0.0,
       calls, i - r - w, r, w, o, t, x, g, i + o, ROUND(nano_usd / 1e9, 6), ROUND(seconds / 60, 1)
FROM spent
LEFT JOIN hypotheses ON hypotheses.hypothesis_id = spent.hypothesis_id
LEFT JOIN candidates ON candidates.candidate_id = (
    SELECT MAX(candidate_id) FROM candidates AS made WHERE made.hypothesis_id = spent.hypothesis_id
)
LEFT JOIN decisions ON decision_id = (
    SELECT MAX(decision_id) FROM decisions AS mine WHERE mine.candidate_id = candidates.candidate_id
);

CREATE TRIGGER trial_on_timeline AFTER INSERT ON trials BEGIN
    INSERT INTO timeline (unix_s, edge, epoch, sequence, stage, outcome, incumbent, successes, trials)
    SELECT NEW.received_unix_s, NEW.edge, NEW.epoch, NEW.sequence, NEW.purpose, NEW.outcome, incumbent,
           COALESCE(successes, 0) + (counts AND NEW.outcome = 'success'), COALESCE(trials, 0) + counts
    FROM (
        SELECT last.*, COALESCE(
            NEW.purpose NOT IN ('heldout', 'audit', 'check') AND NEW.outcome != 'invalid'
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
                   decision_id IS NULL AND stage NOT IN ('heldout', 'audit', 'check') AND timeline.outcome != 'invalid'
                   AND trials.bundle = candidates.bundle, 0
               ) AS counts
        FROM timeline
        LEFT JOIN trials ON trials.edge = timeline.edge AND trials.epoch = timeline.epoch
            AND trials.sequence = timeline.sequence
        LEFT JOIN candidates ON candidate_id = incumbent
    ) WINDOW so_far AS (PARTITION BY reign ORDER BY place)
) AS kept WHERE kept.place = timeline.place AND (kept.k != timeline.successes OR kept.n != timeline.trials);
