-- Delete dead letters for good. One that was sent to its queue again meanwhile stays.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 workspace   3... ids
-- Reply how many
-- Cost  for each ZREM DEL
local ws, gone = ARGV[2], 0
for at = 3, #ARGV do
  local field = ws .. ':' .. ARGV[at]
  if call('ZREM', dead_key(ws), ARGV[at]) == 1 then
    call('DEL', job_key(field), result_key(field))
    gone = gone + 1
  end
end
return gone
