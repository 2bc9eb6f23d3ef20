-- Where a job is, and its result; with a mark, have its end published.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 field   3 1 to be told of its end
-- Reply {state, result or nil, ms it is due or nil, its hash as a list}
--       state: unknown over waiting delayed blocked running
-- Cost  GET; if it is not over HGET HGET ZSCORE HEXISTS, for each worker HEXISTS, HGETALL; HGET HSET to be told
local field = ARGV[2]
local result = call('GET', result_key(field))
if result then
  return {'over', result, false, ARGV[3] == '1' and {} or call('HGETALL', job_key(field))}
end
local payload = call('HGET', JOBS, field)
if not payload or payload == '' then return {'unknown', false, false, {}} end
if ARGV[3] == '1' then
  follow(field, 'w', '')
  return {'waiting', false, false, {}}
end
local hash = call('HGETALL', job_key(field))
local due = call('ZSCORE', LATER, field)
if due then return {'delayed', false, due, hash} end
if call('HEXISTS', BLOCKED, field) == 1 then return {'blocked', false, false, hash} end
for _, worker in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  if call('HEXISTS', run_key(worker), field) == 1 then return {'running', false, false, hash} end
end
return {'waiting', false, false, hash}
