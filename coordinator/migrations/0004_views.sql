-- Views for people: each answers a question that a lab asks.
-- The interval of k in n is Wilson's of 95 %: (k + z²/2 ± z √(k (n - k) / n + z²/4)) / (n + z²), z = 1.959964.
-- ROUND(...) + 0.0 shows 0 where a small negative number is rounded, not -0.
DROP VIEW success_by_policy;
DROP VIEW failure_modes;
DROP VIEW station_utilisation;

CREATE VIEW success_by_policy (         -- how often each policy succeeded; held-out starts are never pooled with others
    bundle,                             -- sha256 of the policy's archive
    starts,                             -- 'held-out', or 'other': those that also chose policies, so they lean high
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
    SELECT bundle, purpose = 'heldout' AS heldout, SUM(outcome = 'success') AS k, SUM(outcome != 'invalid') AS n,
           SUM(outcome = 'invalid') AS invalid, AVG(CASE WHEN outcome != 'invalid' THEN progress END) AS progress,
           AVG(CASE WHEN outcome != 'invalid' THEN trial_s END) AS trial_s,
           GROUP_CONCAT(DISTINCT edge) AS stations, COUNT(DISTINCT calibration_hash) AS calibrations
    FROM trials GROUP BY bundle, purpose = 'heldout'
)
SELECT counted.bundle, CASE heldout WHEN 1 THEN 'held-out' ELSE 'other' END, bundles.task, bundles.policy,
       candidate_id, state, sentence, params, k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       invalid, ROUND(progress, 3), ROUND(counted.trial_s, 1), stations, calibrations
FROM counted
LEFT JOIN bundles ON bundles.bundle = counted.bundle
LEFT JOIN candidates
    ON candidate_id = (SELECT MAX(candidate_id) FROM candidates AS newest WHERE newest.bundle = counted.bundle)
LEFT JOIN hypotheses ON hypotheses.hypothesis_id = candidates.hypothesis_id;

CREATE VIEW success_by_start (          -- how each policy did from each initial state
    bundle,                             -- sha256 of the policy's archive
    start_id,                           -- the initial state
    successes,                          -- of the valid trials
    trials,                             -- valid ones
    invalid,                            -- trials that the harness spoiled
    progress,                           -- mean over valid trials, [0, 1]
    causes                              -- of its failures and invalid trials
) AS
SELECT bundle, start_id, SUM(outcome = 'success'), SUM(outcome != 'invalid'), SUM(outcome = 'invalid'),
       ROUND(AVG(CASE WHEN outcome != 'invalid' THEN progress END), 3), GROUP_CONCAT(DISTINCT NULLIF(cause, ''))
FROM trials GROUP BY bundle, start_id;

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
GROUP BY start_id HAVING SUM(outcome = 'failure') > 0;

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
    successes,                          -- of its valid trials to this day, but for held-out starts
    trials,                             -- those trials; they chose it, so they lean high
    heldout_successes,                  -- of its largest measurement on held-out starts, a complete one first
    heldout_trials,                     -- of that measurement; NULL where there is none
    heldout_percent,                    -- success in it
    heldout_low, heldout_high           -- Wilson's 95 % interval of it
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
        WHERE trials.bundle = candidates.bundle AND (purpose = 'heldout') = 0),
       (SELECT SUM(outcome != 'invalid') FROM trials
        WHERE trials.bundle = candidates.bundle AND (purpose = 'heldout') = 0),
       k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1)
FROM bounded
JOIN candidates ON candidates.candidate_id = bounded.candidate_id
JOIN hypotheses ON hypotheses.hypothesis_id = candidates.hypothesis_id
LEFT JOIN (SELECT heldout_id, successes AS k, trials AS n FROM heldout) ON heldout_id = (
    SELECT heldout_id FROM heldout AS mine WHERE mine.candidate_id = bounded.candidate_id
    ORDER BY complete DESC, mine.trials DESC, heldout_id DESC LIMIT 1
);

CREATE VIEW ideas (                     -- everything that was tried, in order, and what became of it
    candidate_id,                       -- counts them
    minute,                             -- when it was proposed, from the start of the first campaign
    researcher,                         -- who proposed it
    kind,                               -- 'seed', 'switch', 'parameter', 'merge', 'combine', 'sobol', ...
    sentence,                           -- the hypothesis
    falsifier,                          -- what would speak against it
    changes,                            -- JSON object: what it changes against its parent
    parent_candidate_id,                -- the incumbent it was made from; NULL for the seed
    bundle,                             -- sha256 of the policy's archive
    verdict,                            -- 'accept', 'reject', 'inconclusive', 'superseded'; 'open' while it is tested
    stage,                              -- at which it was decided: 'seed', 'screen', 'gate'
    reason,                             -- of the decision
    attempts,                           -- trials that were finished on its behalf
    pairs, wins, losses,                -- that decided it; in the screen attempts
    gain_points                         -- success minus the incumbent's when it was decided, percentage points
) AS
SELECT candidates.candidate_id,
       ROUND(MAX(0, candidates.created_unix_s - (SELECT MIN(started_unix_s) FROM campaigns)) / 60, 1),
       researcher, kind, sentence, falsifier, changes, parent_candidate_id, bundle, COALESCE(verdict, 'open'), stage,
       reason,
       (SELECT COUNT(*) FROM assignments
        WHERE assignments.candidate_id = candidates.candidate_id AND assignments.state = 'done'),
       pairs, wins, losses, ROUND(gain_points, 1) + 0.0
FROM candidates
JOIN hypotheses ON hypotheses.hypothesis_id = candidates.hypothesis_id
LEFT JOIN decisions ON decision_id = (
    SELECT MAX(decision_id) FROM decisions AS mine WHERE mine.candidate_id = candidates.candidate_id
);

CREATE VIEW failure_modes (             -- how each policy failed
    bundle,                             -- sha256 of the policy's archive
    cause,                              -- the failure class
    trials,                             -- that ended so
    percent,                            -- of the policy's failures
    progress                            -- mean, [0, 1]
) AS
SELECT bundle, cause, COUNT(*), ROUND(100.0 * COUNT(*) / SUM(COUNT(*)) OVER (PARTITION BY bundle), 1),
       ROUND(AVG(progress), 3)
FROM trials WHERE outcome = 'failure' GROUP BY bundle, cause;

CREATE VIEW invalid_trials (            -- trials that the harness spoiled, by cause and station
    cause,                              -- 'undecided', 'reset', 'stopped', 'crash', 'bundle', 'verify'
    edge,                               -- the station
    trials,                             -- that ended so
    percent,                            -- of all trials of the station
    newest_unix_s,                      -- when the newest one came,
    newest_detail,                      -- what it said
    newest_recording                    -- and its recording's sha256; empty where there is none
) AS
WITH counted AS (
    SELECT cause, edge, COUNT(*) AS trials, MAX(received_unix_s) AS newest_unix_s
    FROM trials WHERE outcome = 'invalid' GROUP BY cause, edge
),
newest AS (
    SELECT counted.*, (
        SELECT rowid FROM trials WHERE outcome = 'invalid' AND trials.cause = counted.cause
        AND trials.edge = counted.edge ORDER BY received_unix_s DESC LIMIT 1
    ) AS id FROM counted
)
SELECT newest.cause, newest.edge, newest.trials,
       ROUND(100.0 * newest.trials / (SELECT COUNT(*) FROM trials WHERE trials.edge = newest.edge), 1),
       newest_unix_s, detail, recording
FROM newest JOIN trials ON trials.rowid = newest.id;

CREATE VIEW success_by_station (        -- is a station worse than the rest, compared on the same policies
    edge,                               -- the station
    successes,                          -- of its valid trials
    trials,                             -- valid ones
    percent,                            -- success, whatever policies it was given
    low_percent, high_percent,          -- Wilson's 95 % interval of it
    compared,                           -- its valid trials of policies that other stations ran too
    difference_points,                  -- success minus that of the rest, policy by policy (Mantel and Haenszel)
    difference_low, difference_high     -- its 95 % interval (Sato 1989); below 0 altogether: the station is worse
) AS
WITH policies AS (
    SELECT bundle, SUM(successes) AS k, 1.0 * SUM(trials) AS n FROM tallies GROUP BY bundle
),
-- Of k successes in n trials of a policy k1 in n1 are the station's; a policy weighs n1 (n - n1) / n. CROSS JOIN keeps
-- the order of the tables, in which the stations stand together.
summed AS (
    SELECT edge, SUM(k1) AS k, SUM(n1) AS n, SUM(CASE WHEN n1 < policies.n THEN n1 END) AS compared,
           SUM(n1 - n1 * n1 / policies.n) AS weight, SUM(k1 - policies.k * n1 / policies.n) AS gain,
           SUM((n1 * n1 * (policies.k - k1) - (policies.n - n1) * (policies.n - n1) * k1
                + n1 * (policies.n - n1) * (policies.n - 2 * n1) / 2) / (policies.n * policies.n)) AS p,
           SUM((k1 * (policies.n - n1 - policies.k + k1) + (policies.k - k1) * (n1 - k1)) / (2 * policies.n)) AS q
    FROM (SELECT edge, bundle, successes AS k1, trials AS n1 FROM tallies) AS cells
    CROSS JOIN policies ON policies.bundle = cells.bundle GROUP BY edge
)
SELECT edge, k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       COALESCE(compared, 0), ROUND(100 * gain / weight, 1) + 0.0,
       ROUND(100 * (gain - 1.959964 * SQRT(MAX(0, gain / weight * p + q))) / weight, 1) + 0.0,
       ROUND(100 * (gain + 1.959964 * SQRT(MAX(0, gain / weight * p + q))) / weight, 1) + 0.0
FROM summed;

CREATE VIEW station_utilisation (       -- what the wall time of each station went into
    edge,                               -- the station
    trials,                             -- all of them
    invalid,                            -- spoiled by the harness
    used,                               -- that entered a decision, a baseline or a held-out measurement
    wall_s,                             -- from the first trial to the end of the last
    used_percent,                       -- of that time: in trials that were used,
    unused_percent,                     -- in other trials,
    reset_percent,                      -- in resets,
    idle_percent,                       -- in none of them: waiting, sealing recordings, switched off
    wall_trial_s, wall_reset_s,         -- wall time in trials and in resets
    station_trial_min,                  -- trials by the station's own clock, which an emulated station runs faster
    station_reset_min,                  -- resets by that clock
    first_unix_s, last_unix_s           -- the first trial's beginning and the last one's end
) AS
WITH summed AS (
    SELECT edge, COUNT(*) AS trials, SUM(outcome = 'invalid') AS invalid, SUM(used) AS used,
           MAX(ended_unix_s) - MIN(started_unix_s) AS wall_s, SUM(used * wall_trial_s) AS used_s,
           SUM(wall_trial_s) AS wall_trial_s, SUM(wall_reset_s) AS wall_reset_s, SUM(trial_s) AS trial_s,
           SUM(reset_s) AS reset_s, MIN(started_unix_s) AS first_unix_s, MAX(ended_unix_s) AS last_unix_s
    FROM trials GROUP BY edge
)
SELECT edge, trials, invalid, used, ROUND(wall_s, 1), ROUND(100 * used_s / wall_s, 1),
       ROUND(100 * (wall_trial_s - used_s) / wall_s, 1), ROUND(100 * wall_reset_s / wall_s, 1),
       ROUND(100 * (1 - (wall_trial_s + wall_reset_s) / wall_s), 1) + 0.0,
       ROUND(wall_trial_s, 2), ROUND(wall_reset_s, 2), ROUND(trial_s / 60, 2),
       ROUND(reset_s / 60, 2), first_unix_s, last_unix_s
FROM summed;

CREATE VIEW resets_by_station (         -- how each arm put its scenes back
    edge,                               -- the station
    resets,                             -- trials whose scene had to be put back and that nobody stopped meanwhile
    first_try,                          -- of them ready after one try
    percent,                            -- ready after one try
    low_percent, high_percent,          -- Wilson's 95 % interval of it
    median_s, p90_s, longest_s          -- station time that putting the scene back took
) AS
WITH counted AS (
    SELECT edge, COUNT(*) AS moved, SUM(NOT (cause = 'stopped' AND trial_s = 0)) AS n,
           SUM(reset_tries = 1 AND cause NOT LIKE 'reset%' AND NOT (cause = 'stopped' AND trial_s = 0)) AS k,
           MAX(reset_s) AS longest_s
    FROM trials WHERE reset_tries > 0 GROUP BY edge
),
ranked AS (
    SELECT edge, reset_s, ROW_NUMBER() OVER (PARTITION BY edge ORDER BY reset_s) AS nth
    FROM trials WHERE reset_tries > 0
),
placed AS (
    SELECT edge, AVG(CASE WHEN nth IN ((moved + 1) / 2, moved / 2 + 1) THEN reset_s END) AS median_s,
           MAX(CASE WHEN nth = (9 * moved + 9) / 10 THEN reset_s END) AS p90_s
    FROM ranked JOIN counted USING (edge)
    WHERE nth IN ((moved + 1) / 2, moved / 2 + 1, (9 * moved + 9) / 10) GROUP BY edge
)
SELECT edge, n, k, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(median_s, 1), ROUND(p90_s, 1), ROUND(longest_s, 1)
FROM counted JOIN placed USING (edge);

CREATE VIEW steps_summary (             -- one row a trial: what each of its steps took
    edge, epoch, sequence,              -- the trial
    bundle, start_id, purpose,          -- what was run, from where, what for
    outcome, cause,                     -- how it ended
    received_unix_s,                    -- when the coordinator had it
    reset_tries,                        -- 0 when the scene was found ready
    reset_s,                            -- station time of the reset
    policy_steps,                       -- 30 to a second of station time
    policy_s,                           -- station time of the policy
    wall_reset_s,                       -- wall time of the reset
    wall_policy_verify_s,               -- wall time of the policy and of the verdict after it: one stopwatch has both
    wall_rest_s                         -- wall time of opening the trial and sealing its recording
) AS
SELECT edge, epoch, sequence, bundle, start_id, purpose, outcome, cause, received_unix_s, reset_tries,
       ROUND(reset_s, 3), policy_steps, ROUND(trial_s, 3), ROUND(wall_reset_s, 3), ROUND(wall_trial_s, 3),
       ROUND(ended_unix_s - started_unix_s - wall_reset_s - wall_trial_s, 3)
FROM trials;

CREATE VIEW verdict_timeline (          -- trial by trial, decisions in between, as the coordinator heard of them
    place,                              -- counts them, in this order
    unix_s,                             -- when the coordinator had it
    minute,                             -- from the start of the first campaign
    what,                               -- 'trial' or 'decision'
    edge, epoch, sequence,              -- of a trial
    candidate_id,                       -- on whose behalf it was run, or who was decided on
    stage,                              -- purpose of a trial, stage of a decision
    outcome,                            -- of a trial, or the verdict of a decision
    text,                               -- detail of a trial, reason of a decision
    incumbent,                          -- candidate_id of the policy that rules from here on
    incumbent_successes,                -- of its valid trials since it rules, this one included, held-out starts not
    incumbent_trials,                   -- those trials
    incumbent_percent,                  -- success in them
    incumbent_low, incumbent_high       -- Wilson's 95 % interval of it
) AS
WITH counted AS (SELECT *, successes AS k, trials AS n FROM timeline)
-- What is not in the timeline is fetched row by row and only where it is asked for.
SELECT place, unix_s, ROUND(MAX(0, unix_s - (SELECT MIN(started_unix_s) FROM campaigns)) / 60, 2),
       CASE WHEN decision_id IS NULL THEN 'trial' ELSE 'decision' END, edge, epoch, sequence,
       CASE WHEN decision_id IS NULL THEN (
           SELECT candidate_id FROM trials JOIN assignments USING (assignment_id)
           WHERE trials.edge = counted.edge AND trials.epoch = counted.epoch AND trials.sequence = counted.sequence
       ) ELSE (SELECT candidate_id FROM decisions WHERE decisions.decision_id = counted.decision_id) END,
       stage, outcome,
       CASE WHEN decision_id IS NULL THEN (
           SELECT detail FROM trials
           WHERE trials.edge = counted.edge AND trials.epoch = counted.epoch AND trials.sequence = counted.sequence
       ) ELSE (SELECT reason FROM decisions WHERE decisions.decision_id = counted.decision_id) END,
       incumbent, k, n, ROUND(100.0 * k / n, 1),
       ROUND(MAX(0, 100 * (k + 1.920729 - 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1),
       ROUND(MIN(100, 100 * (k + 1.920729 + 1.959964 * SQRT(1.0 * k * (n - k) / n + 0.960365)) / (n + 3.841459)), 1)
FROM counted;

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
    FROM trials WHERE outcome != 'success' AND cause != 'stopped' AND bundle = (
        SELECT bundle FROM candidates WHERE candidate_id = (
            SELECT candidate_id FROM decisions WHERE verdict = 'accept' ORDER BY decision_id DESC LIMIT 1
        )
    )
)
SELECT ROW_NUMBER() OVER (ORDER BY nth, ranked.outcome, of_cause DESC, ranked.cause), ranked.outcome, ranked.cause,
       of_cause, trials.edge, epoch, sequence, start_id, ROUND(trials.progress, 3), detail, file, recording
FROM ranked JOIN trials ON trials.rowid = ranked.id LEFT JOIN recordings ON sha256 = recording
WHERE recording != '';

CREATE VIEW researcher_cost (           -- what each researcher's ideas cost in tokens, and what they gained
    researcher,                         -- as in hypotheses and token_use
    models,                             -- that it called
    ideas,                              -- candidates that it made, the seed apart
    accepted,                           -- of them
    gain_points,                        -- of the accepted ones, summed
    input_tokens, output_tokens,        -- of all its calls, also of those that nothing came of
    cached_tokens,                      -- the part of input_tokens that was read from the vendor's cache
    tokens,                             -- in and out
    tokens_per_accept,                  -- NULL where nothing was accepted
    tokens_per_point,                   -- of gain; NULL where there is none
    model_minutes                       -- waited for answers
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
           SUM(output_tokens) AS output_tokens, SUM(cached_tokens) AS cached_tokens, SUM(seconds) AS seconds
    FROM token_use GROUP BY researcher
),
everybody AS (SELECT researcher FROM tried UNION SELECT researcher FROM spent)
SELECT researcher, models, COALESCE(ideas, 0), COALESCE(accepted, 0), ROUND(COALESCE(gain_points, 0), 1),
       COALESCE(input_tokens, 0), COALESCE(output_tokens, 0), COALESCE(cached_tokens, 0),
       COALESCE(input_tokens + output_tokens, 0),
       ROUND(COALESCE(input_tokens + output_tokens, 0) / NULLIF(1.0 * accepted, 0)),
       ROUND(COALESCE(input_tokens + output_tokens, 0) / NULLIF(MAX(gain_points, 0), 0)),
       ROUND(COALESCE(seconds, 0) / 60, 1)
FROM everybody LEFT JOIN tried USING (researcher) LEFT JOIN spent USING (researcher);

CREATE VIEW backup_state (              -- what of each station no backup holds yet, so that it must keep its own
    edge,                               -- the station
    trials,                             -- all of them
    unreplicated_trials,                -- that no backup holds,
    oldest_unix_s,                      -- and when the oldest of these came
    recordings,                         -- that have come
    unreplicated_recordings,            -- that no backup holds
    unreplicated_mb                     -- their size
) AS
WITH kept AS (
    SELECT edge, COUNT(*) AS trials, SUM(replicated = 0) AS unreplicated,
           MIN(CASE WHEN replicated = 0 THEN received_unix_s END) AS oldest_unix_s
    FROM trials GROUP BY edge
),
films AS (
    SELECT edge, COUNT(*) AS recordings, SUM(replicated = 0) AS unreplicated,
           SUM(CASE WHEN replicated = 0 THEN bytes ELSE 0 END) AS bytes
    FROM recordings GROUP BY edge
)
SELECT kept.edge, trials, kept.unreplicated, oldest_unix_s, COALESCE(recordings, 0), COALESCE(films.unreplicated, 0),
       ROUND(COALESCE(bytes, 0) / 1e6, 1)
FROM kept LEFT JOIN films ON films.edge = kept.edge;
