-- What a policy leaves that cannot be judged counts as a failure where it was measured; how many those are is told.
ALTER TABLE heldout ADD COLUMN invalid INTEGER NOT NULL DEFAULT 0 /* of `trials`: failures because they could not be judged */;
ALTER TABLE audits ADD COLUMN invalid INTEGER NOT NULL DEFAULT 0 /* of `trials`: failures because they could not be judged */;
