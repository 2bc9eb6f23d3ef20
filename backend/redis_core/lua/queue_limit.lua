-- Set how much of a queue, of each workspace, of one workspace or of a task may run at once, or pause and resume it.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 queue, default, workspace or task   3 the workspace's or task's name   4 limit, pause or resume
--       5 for limit: most running, '' for no limit   6 for limit of a workspace: its weight, '' for 1
-- Reply 1
-- Cost  2 to 6; for a task, what its held jobs cost to return to their lists
local what, name, how, most, weight = ARGV[2], ARGV[3], ARGV[4], ARGV[5] or '', ARGV[6] or ''
local function note(field, value)
  if value == '' then call('HDEL', INFO, field) else call('HSET', INFO, field, value) end
end
-- Limits of one name in a hash: `<weight>,<most running>,<1 if paused>`; none of them is no field.
local function keep(hash, marker)
  local old_weight, old_most, paused = match(call('HGET', hash, name) or ',,', '^([^,]*),([^,]*),(.*)$')
  if how == 'limit' then
    old_weight, old_most = weight, most
  else
    paused = how == 'pause' and '1' or ''
  end
  local value = old_weight .. ',' .. old_most .. ',' .. paused
  if value == ',,' then call('HDEL', hash, name) else call('HSET', hash, name, value) end
  note(marker, call('EXISTS', hash) == 1 and '1' or '')
end
if what == 'queue' then
  if how == 'limit' then note('c', most) else note('p', how == 'pause' and '1' or '') end
elseif what == 'default' then
  note('w', most)
  for _, ws in ipairs(call('HKEYS', PARKED)) do unpark(ws) end
elseif what == 'workspace' then
  keep(LIMITS, 'g')
  unpark(name)
else
  keep(GATES, 't')
  local held = call('LRANGE', held_key(name), 0, -1)
  call('DEL', held_key(name))
  -- From the last to the first, each to the front: in their old order, and before what came later.
  for i = #held, 1, -1 do push_job(held[i], nil, true) end
end
ring()
write_counts()
return 1
