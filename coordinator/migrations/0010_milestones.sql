-- How soon a run came how far, and how often one of several tries succeeds; and what a purpose may be.
UPDATE schema_comments
SET comment = '''screen'', ''gate'', ''bank'' (once-failed states), ''heldout'', ''baseline'', ''play'''
WHERE name = 'purpose' AND part IN ('assignments', 'trials');

CREATE VIEW milestones (                -- what it took to get somewhere; one row each that was reached
    what,                               -- '95 % on held-out starts', '99 % on held-out starts', 'after 128 trials'
    minute,                             -- wall time from the start of the first campaign
    trials,                             -- that had ended by then, invalid ones too
    station_minutes,                    -- of the stations' own clocks in them, resets too
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
    FROM after JOIN incumbents ON generation = (SELECT MAX(generation) FROM incumbents WHERE from_unix_s <= at)
),
reached AS (SELECT * FROM measured UNION ALL SELECT * FROM ruled)
SELECT what, ROUND(MAX(0, at - (SELECT MIN(started_unix_s) FROM campaigns)) / 60, 1),
       (SELECT COUNT(*) FROM trials WHERE ended_unix_s <= at),
       (SELECT ROUND(SUM(reset_s + trial_s) / 60, 1) FROM trials WHERE ended_unix_s <= at),
       (SELECT COALESCE(SUM(input_tokens + output_tokens), 0) FROM token_use WHERE unix_s <= at),
       candidate_id, starts, k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1)
FROM reached;

CREATE VIEW pass_rates (                -- how often at least one of several independent tries of a policy succeeds
    bundle,                             -- sha256 of the policy's archive
    starts,                             -- 'held-out', or 'other': those that also chose policies, so they lean high
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
