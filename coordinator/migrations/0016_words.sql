-- What these columns count since a policy answers for what it leaves unjudged.
UPDATE schema_comments SET comment = 'of its trials' WHERE part = 'heldout' AND name = 'successes';
UPDATE schema_comments SET comment = 'judged ones, and those that the policy left so that they could not be judged, which are failures'
WHERE part = 'heldout' AND name = 'trials';
UPDATE schema_comments SET comment = '''success'', ''failure'', or ''invalid'': not judged; a failure where the policy left it so, else asked again'
WHERE part = 'trials' AND name = 'outcome';
