-- The agents of a campaign, and what people told it of them while it ran.
CREATE TABLE lanes (                    -- coding agents that were asked in this run, as they were last
    lane TEXT PRIMARY KEY,              -- its name: `researcher` of hypotheses, refusals and token_use
    kind TEXT NOT NULL,                 -- which agent: 'claude-api', 'claude-code', 'codex', 'kimi-code'
    model TEXT NOT NULL,                -- which model it asks
    state TEXT NOT NULL,                -- 'idle', 'thinking', 'resting' after a failure, 'halted', 'stopped'
    why TEXT NOT NULL,                  -- of resting, halted and stopped: one line
    proposals INTEGER NOT NULL,         -- how often it brought one
    failures INTEGER NOT NULL,          -- how often it brought none
    thought_s REAL NOT NULL             -- wall time that it has thought
) STRICT;
CREATE TABLE lane_orders (              -- what people told the campaign of its agents; a later process obeys them again
    order_id INTEGER PRIMARY KEY,       -- counts them; they are obeyed in this order
    ordered_unix_s REAL NOT NULL,       -- when
    what TEXT NOT NULL,                 -- 'pause', 'go', 'stop', 'add'; 'usd', 'tokens', 'minutes' for a new budget
    about TEXT NOT NULL                 -- the lane; of 'add' NAME or NAME:COUNT; of a budget how much, for all lanes
) STRICT;
