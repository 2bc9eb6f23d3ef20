-- Add one report to a workspace's month, once, and tell what the day and the month have cost.
-- KEYS  1 month; 2 marker of who reports; 3 budget
-- ARGV  1 number of the report, one more than the last of this marker; 2 seconds the marker is kept; 3 seconds the month is kept;
--       4 field of the day's cost; 5 field of the month's cost; 6 and on: field, how much to add
-- Reply {1 added or 0 known before; day's cost; month's cost; limit of a day; limit of a month; share that warns}: numbers as text, or nil
-- Cost  GET HMGET HMGET; for a report that is new SET EXPIRE more, and HINCRBY for each field
local last = redis.call('GET', KEYS[2])
local new = 0
if not last or tonumber(last) < tonumber(ARGV[1]) then
  new = 1
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
  for i = 6, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
local spent = redis.call('HMGET', KEYS[1], ARGV[4], ARGV[5])
local budget = redis.call('HMGET', KEYS[3], 'day', 'month', 'warn')
return {new, spent[1], spent[2], budget[1], budget[2], budget[3]}
