-- Give a job what it waits for, or will; the first answer of a name counts.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 field   3 name   4 value
-- Reply 0 there is no such job   1 given   2 it had been given before, nothing changed
-- Cost  HGET HSETNX HSETNX HGET; if it waits for this ZREM HDEL and up to 7 to wake it
local field, name = ARGV[2], ARGV[3]
local payload = call('HGET', JOBS, field)
if not payload or payload == '' then return 0 end
if call('HSETNX', job_key(field), 'g:' .. name, ARGV[4]) == 0 then return 2 end
-- So that whoever runs it next knows that it has a hash.
call('HSETNX', TRIES, field, '0,0,0')
if call('HGET', job_key(field), 'w') == name and call('ZREM', LATER, field) == 1 then
  call('HDEL', job_key(field), 'w')
  push_job(field, payload, true)
  ring()
end
return 1
