-- A worker's whole turn: renew its lease, acknowledge what finished, reap workers whose lease ended, promote what is due, and
-- claim a fair share.
--
-- KEYS  1 queue-jobs:{<queue>}
-- ARGV  1 now in ms or 0   2 worker   3 lease in ms   4 jobs it can take   5 flags: o it owns jobs, b tell cancellations,
--       s it listens by subscription, u a reply was lost: what is not named here was never begun, e it needs no
--       lease while it has no jobs, x it stops
--       6 deaths of workers after which a job is buried   7 ms a dead letter is kept   8 ms the result of one is kept
--       9 how often a reply was lost: a turn that the worker sent before the last time comes too late, and does nothing
--       then for each job that it is done with 8 words: field, run, kind, 1 if it has a hash, unique key, number, text, text
--         d done: ttl, result or ''      c cancelled: ttl, result      x dead: ttl, error, result
--         r failed, again later: ms, error      l later, no failure: ms      w waits for a signal: ms, its name
--         b waits for jobs: -, ids each with \n      h handed back      k kept, with flag u
-- Reply {now, ms until something can happen or -1, 1 if the lease was lost, 1 if work was left, fields refused, fields to
--       cancel, claimed: field, run, failures, deaths, payload, ...}
-- Cost  about 18 for any number of jobs, and SET for each result, 2 for each workspace served and each 64 jobs of it; idle 8
--
-- Fairness: start-time fair queueing (Goyal et al., 1996). The workspace of the least virtual time is served; each job moves it
-- on by 1 / weight. A workspace leaves the ring when it comes up without work, not before, so it cannot win by being empty.
local worker, lease, free, flags = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local most_deaths, keep, keep_result = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local WORDS, FIRST, AT_ONCE, IN_A_ROW, VISITS, RINGS = 8, 10, 500, 8, 1000, 32
-- Payloads that are read at a time, and bytes of them that one reply holds, beside its first.
local CHUNK, MOST_BYTES = 64, 1048576
-- Failures of a job that are told of; ms that a doubt is remembered.
local HISTORY, DOUBTS_KEPT = 50, 600000
local function flag(letter) return find(flags, letter, 1, true) ~= nil end
local mine = run_key(worker)
local refused, cancels, claimed = {}, {}, {}
-- A first write that takes no memory: a store that is full then lets the rest pass, for what it ends makes room.
call('ZREM', LEASES, '')
local doubts = 'queue-doubts:' .. TAG .. ':' .. worker
if tonumber(ARGV[9]) < tonumber(call('GET', doubts) or 0) then return {now, -1, 0, 0, {}, {}, {}} end
if flag('u') then call('SET', doubts, ARGV[9], 'PX', DOUBTS_KEPT) end
local info = call('HMGET', INFO, 'v', 'p', 'c', 'w', 'g', 't', 's')
if flag('s') and not info[7] then call('HSET', INFO, 's', 1) end

-- Of a job that is owned: how often it was claimed, failed and lost its worker; whether it is to be cancelled; its task.
local function owned(value) return match(value, '^(%d+),(%d+),(%d+),(%d),(.*)$') end
local function freed(ws, task)
  count(RUNNING, '*', -1)
  count(RUNNING, ws, -1)
  count(RUNNING, '/' .. task, -1)
end

-- --- renew ---
local deadline = tonumber(call('ZSCORE', LEASES, worker))
local lost = flag('o') and not deadline
if deadline and flag('o') and deadline - now < lease * 0.75 then
  deadline = now + lease
  call('ZADD', LEASES, deadline, worker)
end

-- --- acknowledge ---
local ended, succeeded, uniques, dropped = {}, {}, {}, {}
local freed_ws, freed_tasks = {}, {}
local function release(ws, task)
  freed(ws, task)
  freed_ws[ws], freed_tasks[task] = true, true
end
local function finish(field, ok, unique)
  ended[#ended + 1], succeeded[#ended + 1], uniques[#ended + 1] = field, ok, unique
end

local function settle(at, field, value)
  local run, failures, deaths, cancelled, task = owned(value)
  local kind, hash, unique, number, text = ARGV[at + 2], ARGV[at + 3] == '1', ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local ws, id = split(field)
  dropped[#dropped + 1] = field
  release(ws, task)
  if kind == 'd' or kind == 'c' then
    if text ~= '' then call('SET', result_key(field), text, 'PX', number) end
    if hash then call('PEXPIRE', job_key(field), max(tonumber(number), 1)) end
    finish(field, kind == 'd', unique)
  elseif kind == 'x' then
    call('HSET', job_key(field), 'e' .. run, text)
    bury(field, nil, keep)
    call('SET', result_key(field), ARGV[at + 7], 'PX', number)
    finish(field, false, unique)
  elseif cancelled == '1' then
    -- It wants to go on later, and somebody does not want it to.
    call('SET', result_key(field), 'ccancelled while it ran', 'PX', keep_result)
    call('PEXPIRE', job_key(field), keep_result)
    finish(field, false, unique)
  else
    if kind == 'r' then
      failures = failures + 1
      call('HSET', job_key(field), 'e' .. run, text)
      if tonumber(run) > HISTORY then call('HDEL', job_key(field), 'e' .. (run - HISTORY)) end
    end
    call('HSET', TRIES, field, run .. ',' .. failures .. ',' .. deaths)
    if hash and kind ~= 'w' then call('HDEL', job_key(field), 'w') end
    if kind == 'h' then
      push_job(field, nil, true)
    elseif kind == 'b' then
      local missing, seen = 0, {}
      for other in string.gmatch(text, '[^\n]+') do
        local payload = not seen[other] and call('HGET', JOBS, ws .. ':' .. other)
        seen[other] = true
        if payload and payload ~= '' then
          missing = missing + 1
          follow(ws .. ':' .. other, '+', id)
        end
      end
      if missing > 0 then call('HSET', BLOCKED, field, missing) else push_job(field, nil, true) end
    elseif kind == 'w' and call('HEXISTS', job_key(field), 'g:' .. text) == 1 then
      push_job(field, nil, true)
    else
      if kind == 'w' then call('HSET', job_key(field), 'w', text) end
      call('ZADD', LATER, now + tonumber(number), field)
    end
  end
end

local kept = {}
if #ARGV >= FIRST then
  local fields = {}
  for at = FIRST, #ARGV, WORDS do fields[#fields + 1] = ARGV[at] end
  local values = call('HMGET', mine, unpack(fields))
  for i, field in ipairs(fields) do
    local at, value = FIRST + (i - 1) * WORDS, values[i]
    if not value or match(value, '^%d+') ~= ARGV[at + 1] then
      refused[#refused + 1] = field
    else
      kept[field] = true
      if ARGV[at + 2] ~= 'k' then settle(at, field, value) end
    end
  end
  if #dropped > 0 then call('HDEL', mine, unpack(dropped)) end
end
if flag('u') or flag('x') then
  -- What the store thinks this worker runs, and it does not: claims whose reply was lost.
  local all, back = call('HGETALL', mine), {}
  for i = 1, #all, 2 do
    local field = all[i]
    if not kept[field] then
      local run, failures, deaths, cancelled, task = owned(all[i + 1])
      release((split(field)), task)
      back[#back + 1] = field
      if cancelled == '1' then
        local _, _, unique = header(call('HGET', JOBS, field))
        call('SET', result_key(field), 'ccancelled before it ran', 'PX', keep_result)
        finish(field, false, unique)
      else
        call('HSET', TRIES, field, run .. ',' .. failures .. ',' .. deaths)
        push_job(field, nil, true)
      end
    end
  end
  if #back > 0 then call('HDEL', mine, unpack(back)) end
end

-- --- reap ---
local function reap(dead)
  local all = call('HGETALL', run_key(dead))
  -- A worker runs one job at a time that has its last chance: if it dies beside one, that one is suspected, and its neighbours are not.
  local suspected = false
  for i = 2, #all, 2 do
    local _, _, deaths = owned(all[i])
    suspected = suspected or tonumber(deaths) >= most_deaths - 1
  end
  for i = 1, #all, 2 do
    local field = all[i]
    local ws, id = split(field)
    local run, failures, deaths, cancelled, task = owned(all[i + 1])
    local payload = call('HGET', JOBS, field)
    local _, _, unique = header(payload or '')
    release(ws, task)
    deaths = tonumber(deaths)
    if deaths >= most_deaths - 1 or not suspected then deaths = deaths + 1 end
    local text = '{"type":"WorkerLost","message":"the worker ' .. dead .. ' that ran it stopped","at":' .. now / 1000 .. '}'
    if cancelled == '1' then
      call('SET', result_key(field), 'ccancelled while it ran', 'PX', keep_result)
      call('PEXPIRE', job_key(field), keep_result)
      finish(field, false, unique or '')
    elseif unique then
      call('HSET', job_key(field), 'e' .. run, text)
      if deaths >= most_deaths then
        bury(field, payload, keep)
        call('SET', result_key(field), 'f' .. text, 'PX', keep_result)
        finish(field, false, unique)
      else
        call('HSET', TRIES, field, run .. ',' .. failures .. ',' .. deaths)
        push_job(field, payload, true)
      end
    end
  end
  call('DEL', run_key(dead))
  call('ZREM', LEASES, dead)
end
-- Jobs under a lease that is gone, whoever removed it, would be nobody's.
if lost then reap(worker) end
local leases = call('ZRANGE', LEASES, 0, 1, 'WITHSCORES')
local reaped = 0
while leases[2] and tonumber(leases[2]) <= now and reaped < 10 do
  reap(leases[1])
  if leases[1] == worker then deadline = nil end
  reaped = reaped + 1
  leases = call('ZRANGE', LEASES, 0, 1, 'WITHSCORES')
end
if #ended > 0 then over(ended, succeeded, uniques, keep_result) end

-- --- promote ---
local first = tonumber(call('ZRANGE', LATER, 0, 0, 'WITHSCORES')[2])
if first and first <= now then
  local due = call('ZRANGEBYSCORE', LATER, '-inf', now, 'LIMIT', 0, AT_ONCE)
  call('ZREM', LATER, unpack(due))
  for i, payload in ipairs(call('HMGET', JOBS, unpack(due))) do
    if payload then push_job(due[i], payload) end
  end
  first = tonumber(call('ZRANGE', LATER, 0, 0, 'WITHSCORES')[2])
end

-- --- places that became free: parked workspaces and held jobs ---
if info[4] or info[5] then
  for ws in pairs(freed_ws) do unpark(ws) end
end
local gates = {}
local function gate(task)
  if gates[task] == nil then
    local most, paused = match(call('HGET', GATES, task) or ',,', '^,([^,]*),(.*)$')
    gates[task] = paused == '1' and 0 or tonumber(most) or false
  end
  return gates[task]
end
if info[6] then
  for task in pairs(freed_tasks) do
    local most = gate(task)
    if most then
      for _ = 1, most - counted(RUNNING, '/' .. task) do
        local field = call('LPOP', held_key(task))
        if not field then break end
        push_job(field, nil, true)
      end
    end
  end
end

-- --- claim ---
local fields, payloads, tasks = {}, {}, {}
local visits, served, bytes, full = 0, nil, 0, false

-- Take up to n jobs of a workspace; how many, and false if it has no more or may not have more for now.
local function visit(ws, score, n, cap)
  if cap then
    n = min(n, cap - counted(RUNNING, ws))
    if n <= 0 then
      -- If it is parked already, it came back by a job in an empty list, with less than it has had.
      call('HSETNX', PARKED, ws, score)
      return 0, false
    end
  end
  local popped = call('LMPOP', 5, wait_key(ws, 0), wait_key(ws, 1), wait_key(ws, 2), wait_key(ws, 3), wait_key(ws, 4), 'LEFT', 'COUNT', min(n, CHUNK))
  if not popped then return 0, false end
  local line, ids, taken = popped[1], popped[2], 0
  while ids do
    local names = {}
    for i, id in ipairs(ids) do names[i] = ws .. ':' .. id end
    for i, payload in ipairs(call('HMGET', JOBS, unpack(names))) do
      if payload == '' then
        drop_name(names[i])
      elseif payload then
        if #fields > 0 and bytes + #payload > MOST_BYTES then
          local back = {}
          for at = #ids, i, -1 do back[#back + 1] = ids[at] end
          call('LPUSH', line, unpack(back))
          full = true
          return taken, true
        end
        local _, task = header(payload)
        local most = info[6] and gate(task)
        if most and counted(RUNNING, '/' .. task) >= most then
          call('RPUSH', held_key(task), names[i])
        else
          taken, bytes = taken + 1, bytes + #payload
          count(RUNNING, '*', 1)
          count(RUNNING, ws, 1)
          count(RUNNING, '/' .. task, 1)
          fields[#fields + 1], payloads[#payloads + 1], tasks[#tasks + 1] = names[i], payload, task
        end
      end
    end
    n = n - #ids
    ids = n > 0 and #ids == CHUNK and call('LPOP', line, min(n, CHUNK))
  end
  return taken, true
end

-- Serve the workspaces of least virtual time, as many as can matter; false if there are none.
local function serve()
  local asked = min(free + 1, RINGS)
  local ranked = call('ZPOPMIN', RING, asked)
  if #ranked == 0 then return false end
  local names, scores = {}, {}
  for i = 1, #ranked, 2 do
    names[#names + 1], scores[#scores + 1] = ranked[i], tonumber(ranked[i + 1])
  end
  -- Beyond the last one popped there may be others, who come first then.
  local horizon = #names == asked and scores[#scores] or nil
  local share = max(1, min(IN_A_ROW, floor(free / #names)))
  while free > 0 and #names > 0 and visits < VISITS and not full and not (horizon and scores[1] > horizon) do
    visits = visits + 1
    local ws, score = table.remove(names, 1), table.remove(scores, 1)
    local weight, cap = 1, tonumber(info[4])
    if info[5] then
      local limits = call('HGET', LIMITS, ws)
      if limits then
        local own_weight, own_cap, paused = match(limits, '^([^,]*),([^,]*),(.*)$')
        weight, cap = tonumber(own_weight) or 1, paused == '1' and 0 or tonumber(own_cap) or cap
      end
    end
    local n = free
    if scores[1] then n = min(n, IN_A_ROW, max(share, floor((scores[1] - score) * weight) + 1)) end
    local taken, more = visit(ws, score, n, cap)
    free = free - taken
    if taken > 0 then served = score end
    if more then
      score = score + taken / weight
      local place = 1
      while scores[place] and (scores[place] < score or (scores[place] == score and names[place] < ws)) do place = place + 1 end
      table.insert(names, place, ws)
      table.insert(scores, place, score)
    end
  end
  local back = {}
  for i, ws in ipairs(names) do
    back[#back + 1], back[#back + 2] = scores[i], ws
  end
  if #back > 0 then call('ZADD', RING, unpack(back)) end
  return visits < VISITS and not full
end

local open = not info[2]
if info[3] then
  local left = tonumber(info[3]) - counted(RUNNING, '*')
  if left < free then free = max(left, 0) end
  open = open and left > 0
end
if open then
  while free > 0 and serve() do end
end
if #fields > 0 then
  if served ~= tonumber(info[1]) then call('HSET', INFO, 'v', served) end
  local tries, values = call('HMGET', TRIES, unpack(fields)), {}
  for i, field in ipairs(fields) do
    local run, failures, deaths = match(tries[i] or '0,0,0', '^(%d+),(%d+),(%d+)')
    run = run + 1
    values[i * 2 - 1], values[i * 2] = field, run .. ',' .. failures .. ',' .. deaths .. ',0,' .. tasks[i]
    local at = #claimed
    claimed[at + 1], claimed[at + 2], claimed[at + 3], claimed[at + 4], claimed[at + 5] = field, run, tonumber(failures), tonumber(deaths), payloads[i]
  end
  call('HSET', mine, unpack(values))
end

-- --- the lease, the bell, and when to come again ---
if #fields > 0 and not (deadline and deadline - now >= lease * 0.75) then
  call('ZADD', LEASES, now + lease, worker)
  -- Somebody must know when this lease ends; later turns of this worker renew it. Two, for this worker may wait in line as well.
  if not deadline then ring(2) end
end
if flag('e') and #fields == 0 and call('EXISTS', mine) == 0 then call('ZREM', LEASES, worker) end
if flag('x') then
  call('ZREM', LEASES, worker)
  ring()
end
local left = open and (free == 0 or full or visits >= VISITS) and call('EXISTS', RING) == 1
if left then ring() end
if flag('b') then
  local all = call('HGETALL', mine)
  for i = 1, #all, 2 do
    local _, _, _, cancelled = owned(all[i + 1])
    if cancelled == '1' then cancels[#cancels + 1] = all[i] end
  end
end
write_counts()
local event = first
for i = 1, #leases, 2 do
  if leases[i] ~= worker and (not event or tonumber(leases[i + 1]) < event) then event = tonumber(leases[i + 1]) end
end
return {now, event and max(event - now, 0) or -1, lost and 1 or 0, left and 1 or 0, refused, cancels, claimed}
