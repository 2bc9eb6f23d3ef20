-- Take jobs of one workspace in. Idempotent by id: a job that is known already, or is over and has a result, is left as it is.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms, 0 or -   2 workspace   3 most unfinished jobs of the workspace   4 1 to look for results of these ids too;
--       more than 1: these were kept in a journal, and their records' names are remembered for so many ms
--       then for each job 6 words: id, level 0 to 4, delay in ms, unique key or '', ids it depends on, each with \n, payload;
--       of a journal 7: the name of its record
-- Reply how many were taken, then for each that was not: its place from 1, and 0 known, 1 the workspace has too many,
--       2 what it depends on did not succeed, or the id of the job that holds the unique key
-- Cost  SET for each of a journal; HMGET HGET HSET HINCRBY, RPUSH or ZADD; ZRANGE HGET ZADD EXISTS RPUSH HGET where the list was empty; TIME without a clock
local ws, room, mode = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local from_journal = mode > 1
local fields, rows = {}, {}
for at = 5, #ARGV, from_journal and 7 or 6 do
  fields[#fields + 1] = ws .. ':' .. ARGV[at]
  rows[#rows + 1] = at
end
local known = call('HMGET', JOBS, unpack(fields))
room = room - (tonumber(call('HGET', DEPTH, ws)) or 0)
local reply, taken, seen, refused = {0}, 0, {}, {}
local function refuse(place, why)
  refused[place] = true
  reply[#reply + 1], reply[#reply + 2] = place, why
end

-- Who enqueued a job into a journal has gone on, and asks for its result.
local function end_unheard(field, why)
  if from_journal then call('SET', result_key(field), 'c' .. why, 'PX', 3600000) end
end

local stored, later, ready = {}, {}, {}
for i, field in ipairs(fields) do
  local at = rows[i]
  local id, level, delay, unique, parents = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  local holder, missing, failed
  -- What was taken in from this record before may be over, and forgotten.
  local again = from_journal and not call('SET', 'queue-taken:' .. TAG .. ':' .. ARGV[at + 6], 1, 'PX', mode, 'NX')
  if again or known[i] or seen[id] or (mode > 0 and call('EXISTS', result_key(field)) == 1) then
    refuse(i, 0)
  elseif unique ~= '' then
    holder = call('HGET', UNIQUE, ws .. ':' .. unique)
  end
  if refused[i] then
    -- Told already.
  elseif holder then
    refuse(i, holder)
    end_unheard(field, 'job ' .. holder .. ' has its unique key')
  elseif taken >= room then
    refuse(i, 1)
  else
    missing = {}
    for parent in string.gmatch(parents, '[^\n]+') do
      local name = ws .. ':' .. parent
      local payload = seen[parent] and 'new' or call('HGET', JOBS, name)
      if missing[name] then
        -- Named twice.
      elseif payload and payload ~= '' then
        missing[name] = true
        missing[#missing + 1] = name
      else
        local result = call('GET', result_key(name))
        failed = failed or (result and sub(result, 1, 1) ~= 'd')
      end
    end
    if failed then
      refuse(i, 2)
      end_unheard(field, 'a job that it depends on did not succeed')
    else
      if unique ~= '' then call('HSET', UNIQUE, ws .. ':' .. unique, id) end
      taken, seen[id] = taken + 1, true
      stored[#stored + 1], stored[#stored + 2] = field, ARGV[at + 5]
      if #missing > 0 then
        call('HSET', BLOCKED, field, #missing)
        if delay > 0 then call('HSET', BLOCKED, due_name(field), now + delay) end
        for _, parent in ipairs(missing) do follow(parent, '-', id) end
      elseif delay > 0 then
        later[#later + 1], later[#later + 2] = now + delay, field
      else
        ready[level] = ready[level] or {}
        ready[level][#ready[level] + 1] = id
      end
    end
  end
end

if taken > 0 then
  call('HSET', JOBS, unpack(stored))
  call('HINCRBY', DEPTH, ws, taken)
  local wake = false
  for level, ids in pairs(ready) do
    if push(ws, level, ids) then wake = true end
  end
  if #later > 0 then
    local first = tonumber(call('ZRANGE', LATER, 0, 0, 'WITHSCORES')[2])
    for i = 1, #later, 2 do
      if not first or later[i] < first then wake = true end
    end
    call('ZADD', LATER, unpack(later))
  end
  if wake then ring() end
end
reply[1] = taken
return reply
