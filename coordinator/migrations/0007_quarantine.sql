-- What is refused is recognised by its hash when it comes again, and only its beginning is kept where it is huge.
ALTER TABLE quarantine ADD COLUMN content_sha256 TEXT /* of the bytes as they came, hex; NULL in older rows */;
CREATE UNIQUE INDEX quarantine_by_content ON quarantine (content_sha256);
CREATE INDEX quarantine_by_edge ON quarantine (edge);
