-- Everything that was said in words, findable by any of them.
CREATE TABLE sayings (                  -- every sentence that was written down, for search; triggers keep it
    saying_id INTEGER PRIMARY KEY,      -- counts them; the row number in search
    source TEXT NOT NULL,               -- 'trial', 'hypothesis', 'decision', 'event'
    name TEXT NOT NULL,                 -- its number there; of a trial edge/epoch/sequence
    said_unix_s REAL NOT NULL,          -- when the coordinator had it
    text TEXT NOT NULL,                 -- cause, detail and notes; sentence and falsifier; reason; or text
    UNIQUE (source, name)
);
-- Not over trials itself: VACUUM may give its rows other numbers, as none of its columns is an INTEGER PRIMARY KEY.
CREATE VIRTUAL TABLE search             /* finds sayings: SELECT * FROM search WHERE search MATCH 'word' */
USING fts5(
    text, source UNINDEXED, name UNINDEXED, said_unix_s UNINDEXED,
    content = 'sayings', content_rowid = 'saying_id', tokenize = 'porter unicode61'
);
CREATE TRIGGER sayings_added AFTER INSERT ON sayings BEGIN
    INSERT INTO search (rowid, text) VALUES (NEW.saying_id, NEW.text);
END;
CREATE TRIGGER sayings_changed AFTER UPDATE ON sayings BEGIN
    INSERT INTO search (search, rowid, text) VALUES ('delete', OLD.saying_id, OLD.text);
    INSERT INTO search (rowid, text) VALUES (NEW.saying_id, NEW.text);
END;
CREATE TRIGGER sayings_removed AFTER DELETE ON sayings BEGIN
    INSERT INTO search (search, rowid, text) VALUES ('delete', OLD.saying_id, OLD.text);
END;
CREATE TRIGGER trial_said AFTER INSERT ON trials BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'trial', NEW.edge || '/' || NEW.epoch || '/' || NEW.sequence, NEW.received_unix_s,
        NEW.cause || ' ' || NEW.detail || COALESCE((
            SELECT GROUP_CONCAT(' ' || key || ' ' || value, '')
            FROM JSON_EACH(CASE WHEN JSON_VALID(NEW.notes) THEN NEW.notes ELSE '{}' END)
        ), '')
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER trial_said_otherwise AFTER UPDATE OF cause, detail, notes ON trials BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'trial', NEW.edge || '/' || NEW.epoch || '/' || NEW.sequence, NEW.received_unix_s,
        NEW.cause || ' ' || NEW.detail || COALESCE((
            SELECT GROUP_CONCAT(' ' || key || ' ' || value, '')
            FROM JSON_EACH(CASE WHEN JSON_VALID(NEW.notes) THEN NEW.notes ELSE '{}' END)
        ), '')
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER trial_unsaid AFTER DELETE ON trials BEGIN
    DELETE FROM sayings WHERE source = 'trial' AND name = OLD.edge || '/' || OLD.epoch || '/' || OLD.sequence;
END;
CREATE TRIGGER hypothesis_said AFTER INSERT ON hypotheses BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'hypothesis', NEW.hypothesis_id, NEW.created_unix_s, NEW.sentence || ' ' || NEW.falsifier
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER hypothesis_said_otherwise AFTER UPDATE OF sentence, falsifier ON hypotheses BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'hypothesis', NEW.hypothesis_id, NEW.created_unix_s, NEW.sentence || ' ' || NEW.falsifier
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER hypothesis_unsaid AFTER DELETE ON hypotheses BEGIN
    DELETE FROM sayings WHERE source = 'hypothesis' AND name = OLD.hypothesis_id || '';
END;
CREATE TRIGGER decision_said AFTER INSERT ON decisions BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'decision', NEW.decision_id, NEW.decided_unix_s, NEW.verdict || ' ' || NEW.reason
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER decision_said_otherwise AFTER UPDATE OF verdict, reason ON decisions BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'decision', NEW.decision_id, NEW.decided_unix_s, NEW.verdict || ' ' || NEW.reason
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER decision_unsaid AFTER DELETE ON decisions BEGIN
    DELETE FROM sayings WHERE source = 'decision' AND name = OLD.decision_id || '';
END;
CREATE TRIGGER event_said AFTER INSERT ON events BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'event', NEW.event_id, NEW.unix_s, NEW.level || ' ' || COALESCE(NEW.edge || ' ', '') || NEW.text
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER event_said_otherwise AFTER UPDATE OF level, edge, text ON events BEGIN
    INSERT INTO sayings (source, name, said_unix_s, text) VALUES (
        'event', NEW.event_id, NEW.unix_s, NEW.level || ' ' || COALESCE(NEW.edge || ' ', '') || NEW.text
    ) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text;
END;
CREATE TRIGGER event_unsaid AFTER DELETE ON events BEGIN
    DELETE FROM sayings WHERE source = 'event' AND name = OLD.event_id || '';
END;
-- What was said before this migration.
UPDATE trials SET notes = notes;
UPDATE hypotheses SET sentence = sentence;
UPDATE decisions SET reason = reason;
UPDATE events SET text = text;
