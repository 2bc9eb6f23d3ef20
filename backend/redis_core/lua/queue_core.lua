-- What the scripts of the queue share; stands before the text of each of them.
--
-- KEYS  1 queue-jobs:{<queue>}; the names of all others are made from its hash tag, so they share its slot
-- ARGV  1 now in ms, 0 for the store's own time, - where none is needed; the others are the script's
-- Reply what the script that follows tells
-- Cost  2 HMGET and 2 HDEL for 1000 jobs that are over; TIME without a clock; what the script tells
--
-- A job is named by its field `<workspace>:<id>`. It is in exactly one place: a waiting list, queue-later, queue-blocked,
-- queue-held or the hash of the worker that runs it; its payload is in queue-jobs until it is over. A payload is
-- `<level><task>\t<unique key>\n<body>`; an empty one stands for a job that was cancelled while its name waits in a list.
local call, sub, find, match, floor, min, max = redis.call, string.sub, string.find, string.match, math.floor, math.min, math.max
local JOBS = KEYS[1]
local TAG = match(JOBS, '{.*}')
local function named(kind) return 'queue-' .. kind .. ':' .. TAG end
local RING, LATER, LEASES, BELL, INFO = named('ring'), named('later'), named('leases'), named('bell'), named('info')
local TRIES, RUNNING, DEPTH, LIMITS, GATES = named('tries'), named('running'), named('depth'), named('limits'), named('gates')
local UNIQUE, AFTER, BLOCKED, PARKED = named('unique'), named('after'), named('blocked'), named('parked')
-- Most jobs of a workspace that are kept as dead letters.
local MOST_DEAD = 10000

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

local function run_key(worker) return 'queue-run:' .. TAG .. ':' .. worker end
local function wait_key(ws, level) return 'queue-wait:' .. TAG .. ':' .. ws .. ':' .. level end
local function held_key(task) return 'queue-held:' .. TAG .. ':' .. task end
local function job_key(field) return 'job:' .. TAG .. ':' .. field end
local function result_key(field) return 'job-result:' .. TAG .. ':' .. field end
local function dead_key(ws) return 'job-dead:' .. TAG .. ':' .. ws end

local function split(field)
  local at = find(field, ':', 1, true)
  return sub(field, 1, at - 1), sub(field, at + 1)
end

-- Level, task and unique key of a payload.
local function header(payload) return match(payload, '^(%d)([^\t]*)\t([^\n]*)\n') end

-- Wake one idle worker, or so many, unless they have been told already; those that listen by subscription all hear it.
local function ring(workers)
  for _ = call('LLEN', BELL) + 1, workers or 1 do call('RPUSH', BELL, 1) end
  if call('HGET', INFO, 's') then call('PUBLISH', BELL, '1') end
end

-- The least virtual time of those who wait, or the last one that was served.
local virtual
local function virtual_time()
  if not virtual then virtual = call('ZRANGE', RING, 0, 0, 'WITHSCORES')[2] or call('HGET', INFO, 'v') or '0' end
  return virtual
end

-- A workspace that has work again joins the ring at the present virtual time, so it neither starves nor is starved.
local function join(ws, score) call('ZADD', RING, 'NX', score or virtual_time(), ws) end

-- Put jobs of one workspace and level into its list; true if it had none there.
local function push(ws, level, ids, front)
  local length = call(front and 'LPUSH' or 'RPUSH', wait_key(ws, level), unpack(ids))
  if length > #ids then return false end
  join(ws)
  return true
end

-- Changes of counters, written once at the end of a script.
local changes = {[RUNNING] = {}, [DEPTH] = {}}
local function count(hash, name, by) changes[hash][name] = (changes[hash][name] or 0) + by end
local function counted(hash, name) return (tonumber(call('HGET', hash, name)) or 0) + (changes[hash][name] or 0) end
local function write_counts()
  for hash, names in pairs(changes) do
    for name, by in pairs(names) do
      if by ~= 0 and call('HINCRBY', hash, name, by) <= 0 then call('HDEL', hash, name) end
    end
  end
end

-- The name of a job that was cancelled came up, and is gone with this.
local function drop_name(field)
  call('HDEL', JOBS, field)
  count(DEPTH, (split(field)), -1)
end

-- As push, of one job whose payload tells its level; false if the job is gone.
local function push_job(field, payload, front)
  payload = payload or call('HGET', JOBS, field)
  if payload == '' then drop_name(field) end
  if not payload or payload == '' then return false end
  local ws, id = split(field)
  push(ws, sub(payload, 1, 1), {id}, front)
  return true
end

-- A workspace that was parked may have more again; it returns where it was, whatever it did meanwhile.
local function unpark(ws)
  local score = call('HGET', PARKED, ws)
  if score then
    call('HDEL', PARKED, ws)
    call('ZADD', RING, 'GT', max(tonumber(score), tonumber(virtual_time())), ws)
  end
end

-- Keep a job that will not run again for a person to look at and send anew.
local function bury(field, payload, keep)
  local ws, id = split(field)
  call('HSET', job_key(field), 'p', payload or call('HGET', JOBS, field), 'd', now)
  call('PEXPIRE', job_key(field), keep)
  local dead = dead_key(ws)
  call('ZADD', dead, now, id)
  call('ZREMRANGEBYSCORE', dead, '-inf', now - keep)
  while call('ZCARD', dead) > MOST_DEAD do
    call('UNLINK', job_key(ws .. ':' .. call('ZPOPMIN', dead)[1]))
  end
  call('PEXPIRE', dead, keep)
end

-- Of a job that waits for others: where it is kept when it is due then, for it may not run before.
local function due_name(field) return field .. '\n' end
local function unblock(field)
  call('HDEL', BLOCKED, due_name(field))
  return call('HDEL', BLOCKED, field)
end

-- These jobs are over: forget them, tell who waits, and let go or end what depends on them.
-- fields; succeeded[i]; uniques[i] '' for none; ttl of what is kept of a job that is ended because of another one.
local function over(fields, succeeded, uniques, ttl)
  local at = 1
  while at <= #fields do
    local upto = min(at + 999, #fields)
    local after = call('HMGET', AFTER, unpack(fields, at, upto))
    local tried = call('HMGET', TRIES, unpack(fields, at, upto))
    call('HDEL', JOBS, unpack(fields, at, upto))
    call('HDEL', TRIES, unpack(fields, at, upto))
    for i = at, upto do
      local field = fields[i]
      local ws, id = split(field)
      count(DEPTH, ws, -1)
      -- It may have a hash that its last run knew nothing of: of runs before, or of a signal.
      if tried[i - at + 1] then call('PEXPIRE', job_key(field), ttl, 'NX') end
      if uniques[i] ~= '' then
        local name = ws .. ':' .. uniques[i]
        if call('HGET', UNIQUE, name) == id then call('HDEL', UNIQUE, name) end
      end
      local waiting = after[i - at + 1]
      if waiting then
        call('HDEL', AFTER, field)
        for kind, other in string.gmatch(waiting, '([w+-])([^\n]*)\n') do
          local dependant = ws .. ':' .. other
          if kind == 'w' then
            call('PUBLISH', named('done'), field)
          elseif call('HEXISTS', BLOCKED, dependant) == 1 then
            if kind == '-' and not succeeded[i] then
              -- What was to come after it never will.
              local payload = call('HGET', JOBS, dependant)
              unblock(dependant)
              call('SET', result_key(dependant), 'ca job that it depends on did not succeed', 'PX', ttl)
              call('PEXPIRE', job_key(dependant), ttl)
              local _, _, unique = header(payload)
              fields[#fields + 1], succeeded[#fields + 1], uniques[#fields + 1] = dependant, false, unique
            elseif call('HINCRBY', BLOCKED, dependant, -1) <= 0 then
              local due = call('HGET', BLOCKED, due_name(dependant))
              unblock(dependant)
              if due and not (now and tonumber(due) <= now) then
                call('ZADD', LATER, due, dependant)
                ring()
              else
                push_job(dependant)
              end
            end
          end
        end
      end
    end
    at = upto + 1
  end
end

-- Have a job told or freed when another one is over; kind w for a watcher, + whatever becomes of it, - only if it succeeds.
local function follow(field, kind, id)
  local entry = kind .. id .. '\n'
  local present = call('HGET', AFTER, field) or ''
  if not find(present, entry, 1, true) then call('HSET', AFTER, field, present .. entry) end
end
