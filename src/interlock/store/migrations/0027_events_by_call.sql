-- The events of a call are found however they are asked for: an index that leaves rows out serves only what repeats its condition.

DROP INDEX event_by_call;
CREATE INDEX event_by_call ON event (call_id, chain_id, seq);
