-- Forget unfinished jobs of a workspace for good, those that run included; without ids, what else names the workspace.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 -   2 workspace   3... ids, at most 500; none for the workspace's place in the queue
-- Reply how many jobs there were; without ids how many names
-- Cost  for each HGET LREM HGET 5 HDEL ZREM, and HGET for each worker, HDEL PUBLISH if it runs; without ids 5 and UNLINK
local ws, gone = ARGV[2], 0
if #ARGV == 2 then
  gone = call('UNLINK', wait_key(ws, 0), wait_key(ws, 1), wait_key(ws, 2), wait_key(ws, 3), wait_key(ws, 4)) + call('ZREM', RING, ws)
  for _, hash in ipairs({PARKED, DEPTH, RUNNING, LIMITS}) do gone = gone + call('HDEL', hash, ws) end
  return gone
end
local workers = call('ZRANGE', LEASES, 0, -1)
for at = 3, #ARGV do
  local id = ARGV[at]
  local field = ws .. ':' .. id
  local payload = call('HGET', JOBS, field)
  for _, worker in ipairs(workers) do
    local value = call('HGET', run_key(worker), field)
    if value then
      -- Its worker is told, and what it says of the job from now on is refused.
      call('HDEL', run_key(worker), field)
      count(RUNNING, '*', -1)
      count(RUNNING, ws, -1)
      count(RUNNING, '/' .. match(value, '^%d+,%d+,%d+,%d,(.*)$'), -1)
      call('PUBLISH', named('control'), field)
    end
  end
  local _, task, unique = header(payload or '')
  if task then
    call('LREM', held_key(task), 0, field)
    if unique ~= '' and call('HGET', UNIQUE, ws .. ':' .. unique) == id then call('HDEL', UNIQUE, ws .. ':' .. unique) end
  end
  unblock(field)
  for _, hash in ipairs({AFTER, TRIES}) do call('HDEL', hash, field) end
  call('ZREM', LATER, field)
  if call('HDEL', JOBS, field) == 1 then
    count(DEPTH, ws, -1)
    gone = gone + 1
  end
end
write_counts()
return gone
