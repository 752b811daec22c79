-- Read an answer by its key, or store it.
-- KEYS[1] the key · to store: ARGV[1] longest age in milliseconds, ARGV[2] the answer · to read: no ARGV
if ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
  return 1
end
return redis.call('GET', KEYS[1])
