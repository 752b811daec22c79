-- Append one usage event to a stream. The entry has the fields of a message of voice_saga.
-- KEYS[1] the stream · ARGV longest length, id, payload
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'id', ARGV[2], 'payload', ARGV[3], 'trace', '')
