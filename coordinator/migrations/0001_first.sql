-- The coordinator's database, first version. Times are unix seconds, lengths in the unit that the name says.
CREATE TABLE campaigns (
    campaign_id TEXT PRIMARY KEY, task TEXT NOT NULL, seed INTEGER NOT NULL, stations INTEGER NOT NULL,
    target_successes INTEGER NOT NULL, target_trials INTEGER NOT NULL, budget_minutes REAL NOT NULL,
    started_unix_s REAL NOT NULL, ended_unix_s REAL, ended_why TEXT
);
CREATE TABLE stations (
    edge TEXT PRIMARY KEY, epoch TEXT NOT NULL, station_hash TEXT NOT NULL, calibration_hash TEXT NOT NULL,
    software TEXT NOT NULL, first_seen_unix_s REAL NOT NULL, last_seen_unix_s REAL NOT NULL,
    peak_memory_mb REAL NOT NULL DEFAULT 0
);
CREATE TABLE bundles (
    bundle TEXT PRIMARY KEY,            -- sha256 of the archive, hex
    parent TEXT REFERENCES bundles, task TEXT NOT NULL, policy TEXT NOT NULL,
    params TEXT NOT NULL,               -- JSON object: every parameter and idea with its value
    manifest TEXT NOT NULL, archive BLOB NOT NULL, created_unix_s REAL NOT NULL
);
CREATE TABLE hypotheses (
    hypothesis_id INTEGER PRIMARY KEY, researcher TEXT NOT NULL,
    kind TEXT NOT NULL,                 -- 'seed', 'switch', 'parameter', 'merge', 'combine', 'sobol'
    sentence TEXT NOT NULL, falsifier TEXT NOT NULL,
    changes TEXT NOT NULL,              -- JSON object: what it changes against its parent
    created_unix_s REAL NOT NULL
);
CREATE TABLE candidates (
    candidate_id INTEGER PRIMARY KEY, hypothesis_id INTEGER NOT NULL REFERENCES hypotheses,
    bundle TEXT NOT NULL REFERENCES bundles,
    parent_candidate_id INTEGER REFERENCES candidates,  -- the incumbent it was made from; NULL for the seed
    state TEXT NOT NULL,                -- 'screen', 'gate', 'accepted', 'rejected', 'inconclusive', 'superseded'
    created_unix_s REAL NOT NULL, ended_unix_s REAL
);
CREATE TABLE decisions (
    decision_id INTEGER PRIMARY KEY, candidate_id INTEGER NOT NULL REFERENCES candidates,
    verdict TEXT NOT NULL,              -- 'accept', 'reject', 'inconclusive', 'superseded'
    stage TEXT NOT NULL,                -- 'seed', 'screen', 'gate'
    reason TEXT NOT NULL,
    pairs INTEGER NOT NULL, wins INTEGER NOT NULL, losses INTEGER NOT NULL, wealth REAL NOT NULL,
    candidate_successes INTEGER NOT NULL, candidate_trials INTEGER NOT NULL,
    incumbent_successes INTEGER NOT NULL, incumbent_trials INTEGER NOT NULL,
    gain_points REAL NOT NULL,          -- success in the counts before, candidate minus incumbent, percentage points
    trials_so_far INTEGER NOT NULL, decided_unix_s REAL NOT NULL
);
CREATE TABLE heldout (                  -- a finished or stopped measurement on held-out starts
    heldout_id INTEGER PRIMARY KEY, candidate_id INTEGER NOT NULL REFERENCES candidates,
    successes INTEGER NOT NULL, trials INTEGER NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
    complete INTEGER NOT NULL,          -- 0 when it was stopped: the target had become impossible, or another incumbent came
    ended_unix_s REAL NOT NULL
);
CREATE TABLE assignments (
    assignment_id TEXT PRIMARY KEY, lease_id TEXT, edge TEXT, candidate_id INTEGER NOT NULL REFERENCES candidates,
    bundle TEXT NOT NULL REFERENCES bundles, start_id TEXT NOT NULL, start TEXT NOT NULL, seed INTEGER NOT NULL,
    purpose TEXT NOT NULL, pair_id TEXT,
    state TEXT NOT NULL,                -- 'leased', 'done', 'void'
    leased_unix_s REAL, expires_unix_s REAL, done_unix_s REAL
);
CREATE TABLE trials (
    edge TEXT NOT NULL, epoch TEXT NOT NULL, sequence INTEGER NOT NULL,
    content_sha256 TEXT NOT NULL, received_unix_s REAL NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,    -- 1 once it entered a decision, a held-out measurement or a baseline
    assignment_id TEXT NOT NULL, lease_id TEXT NOT NULL, task TEXT NOT NULL, bundle TEXT NOT NULL,
    start_id TEXT NOT NULL, purpose TEXT NOT NULL, seed INTEGER NOT NULL,
    outcome TEXT NOT NULL, cause TEXT NOT NULL, detail TEXT NOT NULL, progress REAL NOT NULL,
    measures TEXT NOT NULL, achieved_start TEXT NOT NULL,
    reset_s REAL NOT NULL, reset_tries INTEGER NOT NULL, trial_s REAL NOT NULL, policy_steps INTEGER NOT NULL,
    wall_reset_s REAL NOT NULL, wall_trial_s REAL NOT NULL, started_unix_s REAL NOT NULL, ended_unix_s REAL NOT NULL,
    station_hash TEXT NOT NULL, calibration_hash TEXT NOT NULL, software TEXT NOT NULL,
    recording TEXT NOT NULL, recording_bytes INTEGER NOT NULL, notes TEXT NOT NULL,
    PRIMARY KEY (edge, epoch, sequence)
);
CREATE INDEX trials_by_bundle ON trials (bundle, outcome);
CREATE INDEX trials_by_assignment ON trials (assignment_id);
CREATE TABLE quarantine (               -- same identity, other content: kept, never used
    quarantine_id INTEGER PRIMARY KEY, edge TEXT, epoch TEXT, sequence INTEGER, reason TEXT NOT NULL,
    body BLOB NOT NULL, received_unix_s REAL NOT NULL
);
CREATE TABLE recordings (
    sha256 TEXT PRIMARY KEY, edge TEXT NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL, received_unix_s REAL NOT NULL
);
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY, unix_s REAL NOT NULL, edge TEXT, level TEXT NOT NULL, text TEXT NOT NULL
);
CREATE VIEW success_by_policy AS
    SELECT bundle, SUM(outcome = 'success') AS successes, SUM(outcome != 'invalid') AS trials,
           SUM(outcome = 'invalid') AS invalid, ROUND(AVG(CASE WHEN outcome != 'invalid' THEN progress END), 3) AS progress
    FROM trials GROUP BY bundle;
CREATE VIEW failure_modes AS
    SELECT bundle, cause, COUNT(*) AS trials FROM trials WHERE outcome = 'failure' GROUP BY bundle, cause;
CREATE VIEW station_utilisation AS
    SELECT edge, COUNT(*) AS trials, SUM(outcome = 'invalid') AS invalid,
           ROUND(SUM(wall_trial_s), 2) AS wall_trial_s, ROUND(SUM(wall_reset_s), 2) AS wall_reset_s,
           ROUND(SUM(trial_s) / 60, 2) AS station_trial_min, ROUND(SUM(reset_s) / 60, 2) AS station_reset_min,
           MIN(started_unix_s) AS first_unix_s, MAX(ended_unix_s) AS last_unix_s
    FROM trials GROUP BY edge;
