-- Append one usage event to its stream, in the form of voice_saga's messages.
-- KEYS[1] the stream · ARGV longest length, id, payload
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'id', ARGV[2], 'payload', ARGV[3], 'trace', '')
