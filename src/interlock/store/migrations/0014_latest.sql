-- What is known of a user is what their newest session says; a table of its own for that is not needed.
DROP TABLE person_attributes;
CREATE INDEX session_by_lineage ON session (lineage_id, opened_at DESC);
