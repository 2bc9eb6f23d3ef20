-- Send buried jobs to their queue again, their failures forgiven and their history kept; not one whose unique key another has now.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 workspace   3... ids
-- Reply how many
-- Cost  for each HGET ZREM HSETNX HDEL PERSIST HKEYS HSET DEL HINCRBY RPUSH, with a unique key HSETNX and HGET
local ws, sent = ARGV[2], 0
for at = 3, #ARGV do
  local id = ARGV[at]
  local field = ws .. ':' .. id
  local payload = call('HGET', job_key(field), 'p')
  local _, _, unique = header(payload or '')
  local mine = true
  if unique and unique ~= '' and call('HSETNX', UNIQUE, ws .. ':' .. unique, id) == 0 then
    mine = call('HGET', UNIQUE, ws .. ':' .. unique) == id
  end
  if mine then call('ZREM', dead_key(ws), id) end
  if mine and payload and call('HSETNX', JOBS, field, payload) == 1 then
    call('HDEL', job_key(field), 'p', 'd')
    call('PERSIST', job_key(field))
    -- So that its runs go on counting: the history has a field for each.
    local runs = 0
    for _, name in ipairs(call('HKEYS', job_key(field))) do
      runs = max(runs, tonumber(match(name, '^e(%d+)$')) or 0)
    end
    call('HSET', TRIES, field, runs .. ',0,0')
    call('DEL', result_key(field))
    count(DEPTH, ws, 1)
    push_job(field, payload)
    sent = sent + 1
  end
end
if sent > 0 then ring() end
write_counts()
return sent
