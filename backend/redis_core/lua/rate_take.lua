-- Decide on requests, one after the other: all policies of a request let it pass and count it, or none counts anything.
--
-- KEYS  those of all requests in order, one for each subject and endpoint
-- ARGV  1 'take', or 'peek' to change nothing   2 the id of a lease, 16 characters, for concurrency policies
--       3... the forms, see rate_value.lua; then for each request: how many keys, and for each of them: the number of its form,
--       and a cost for each policy
-- Reply now in ms, then for each policy of each request: what remains, and milliseconds to wait, 0 if it lets pass
-- Cost  TIME MGET and for each key that counts SET; all refused TIME MGET
--
-- It runs for every request, so it makes no function and no table that it can do without: both cost more than the arithmetic.

-- What is used of a sliding window, and ms until a cost could pass. Of the oldest sub-window, what an even pace would have put
-- there leaves evenly; what is more came in a burst, nobody knows when, and counts until the last of it may have left. So no
-- window ever takes more than one sub-window's even share above the limit.
local function ring_look(policy, head, sum, text, from, cost)
  local slot, digits, share = policy.slot, policy.b, policy.share
  local tail, elapsed = number(sub(text, from, from + digits - 1)), max(min(now - head, slot), 0)
  local even = min(tail, share)
  local inside = tail - even * (elapsed / slot)
  local used = sum + inside
  local over = used + cost - policy.limit
  if over <= ROUNDING then return used, 0 end
  if over <= even * (1 - elapsed / slot) + ROUNDING then return used, max(ceil(over / even * slot), 1) end
  over = over - inside
  local later = slot - elapsed
  for place = from + digits, #text, digits do
    if over <= ROUNDING then break end
    local count = number(sub(text, place, place + digits - 1))
    even = min(count, share)
    if over <= even then return used, max(ceil(later + over / even * slot), 1) end
    over, later = over - count, later + slot
  end
  return used, max(later, 1)
end

-- The admissions of a log that are still inside its window, as text.
local function log_kept(body, window)
  local from = 14
  while from <= #body and number(sub(body, from, from + 12)) <= now - window do from = from + 13 end
  return sub(body, from)
end

-- The leases that still hold, as text, the last end among them and the first.
local function leases_held(body)
  local held, last, first = '', 0, nil
  for from = 14, #body, 29 do
    local ends = number(sub(body, from, from + 12))
    if ends > now then
      held, last, first = held .. sub(body, from, from + 28), max(last, ends), min(first or ends, ends)
    end
  end
  return held, last, first
end

local take, lease = ARGV[1] == 'take', ARGV[2]
local values, reply, words = redis.call('MGET', unpack(KEYS)), {now}, #ARGV
-- Of each policy of the present request: its parts as its kind needs them, filled anew for each request.
local x, y, z, begins, states = {}, {}, {}, {}, {}
local key, figures = 0, 2
while at <= words do
  local keys, refused, begin, first_key, first_figure = number(ARGV[at]), false, at + 1, key, figures
  at = begin
  for k = 1, keys do
    key = key + 1
    local form = forms[number(ARGV[at])]
    local state = open_key(KEYS[key], values[key], form)
    states[k] = state
    for i = 1, form.count do
      local policy, body, cost = form[i], state.bodies[i] or EMPTY, number(ARGV[at + i])
      local kind, limit, window = policy.kind, policy.limit, policy.window
      local used, wait, place = 0, 0, figures
      if kind == 'r' then
        local head, sum, text, from = ring_at(body, policy)
        used, wait = ring_look(policy, head, sum, text, from, cost)
        x[place], y[place], z[place], begins[place] = head, sum, text, from
      elseif kind == 'f' then
        local ends = number(sub(body, 1, 13))
        if #body > 13 and ends > now then used = number(sub(body, 14)) else ends = now - now % window + window end
        if used + cost > limit then wait = ends - now end
        x[place], y[place] = ends, used
      elseif kind == 'g' then
        local step, due = window * 1000 / limit, micros
        if #body > 13 then due = max(due, number(sub(body, 14))) end
        local over = due + cost * step - micros - policy.a * step
        if over > 0.5 then wait = ceil(over / 1000) end
        used = limit - policy.a + (due - micros) / step
        x[place] = due + cost * step
      elseif kind == 'l' then
        local kept = log_kept(body, window)
        used = #kept / 13
        local over = used + cost - limit
        if over > 0 then wait = number(sub(kept, over * 13 - 12, over * 13)) + window - now end
        x[place] = kept
      elseif kind == 'c' then
        local held, last, first = leases_held(body)
        used = #held / 29
        if used + cost > limit then wait = max((first or now + policy.a) - now, 1) end
        x[place], y[place] = held, max(last, now + policy.a)
      else
        wait = max(number(sub(body, 1, 13)) - now, 0)
      end
      -- What costs nothing passes: a policy of tokens has no say in a request without them.
      if cost == 0 and kind ~= 'b' then wait = 0 end
      if wait > 0 and not policy.watched then refused = true end
      reply[place], reply[place + 1] = limit - used, wait
      figures = place + 2
    end
    at = at + 1 + form.count
  end

  local passes, place = take and not refused, first_figure
  at = begin
  for k = 1, keys do
    local state = states[k]
    local form, bodies = state.form, state.bodies
    for i = 1, form.count do
      local cost = number(ARGV[at + i])
      if passes and cost > 0 and reply[place + 1] == 0 then
        local policy = form[i]
        local kind = policy.kind
        reply[place] = reply[place] - cost
        state.changed = true
        if kind == 'r' then
          local digits, text = policy.b, z[place]
          bodies[i] = format('%013.0f%013.0f', x[place] + policy.lasts, y[place] + cost)
            .. sub(text, begins[place], -digits - 1) .. format(policy.form, number(sub(text, -digits)) + cost)
        elseif kind == 'f' then
          bodies[i] = format('%013.0f%016.0f', x[place], y[place] + cost)
        elseif kind == 'g' then
          bodies[i] = format('%013.0f%016.0f', ceil(x[place] / 1000), x[place])
        elseif kind == 'l' then
          bodies[i] = format('%013.0f', now + policy.window) .. x[place] .. rep(format('%013.0f', now), cost)
        elseif kind == 'c' then
          bodies[i] = format('%013.0f', y[place]) .. x[place] .. format('%013.0f', now + policy.a) .. lease
        end
      end
      reply[place] = max(floor(reply[place] + ROUNDING), 0)
      place = place + 2
    end
    at = at + 1 + form.count
  end
end
close_keys()
return reply
