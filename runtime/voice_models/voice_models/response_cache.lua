-- An answer by its key.
-- KEYS[1] the answer · ARGV[1] longest age in milliseconds, ARGV[2] the answer; without them the answer is read
if ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
  return 1
end
return redis.call('GET', KEYS[1])
