-- Correct what was counted: settle a reservation, give it back, renew or end a lease, or begin a penalty.
--
-- KEYS  one for each subject and endpoint
-- ARGV  1 the time of the decision in ms, 0 for none   2 the id of its lease, 16 characters   3... the forms, see rate_value.lua;
--       then for each key the number of its form, and a change for each policy:
--         r f g l  added to what was counted then; what has left the window meanwhile is not touched
--         c        1 renews the lease, -1 ends it     b  milliseconds of penalty from now on
-- Reply for each policy 1 if it was changed, 0 if there was nothing to change
-- Cost  TIME MGET and for each key that is changed SET
local then_, lease = number(ARGV[1]), ARGV[2]

-- Each kind: (body, policy, change) -> the new body, or nothing if there was none to change.
local kinds = {}

function kinds.r(body, policy, change)
  local slot, digits = policy.slot, policy.b
  local head, sum, text, begins = ring_at(body, policy)
  local place = policy.a - (head - (then_ - then_ % slot)) / slot
  if place < 0 or place > policy.a then return end
  local from = begins + place * digits
  local count = number(sub(text, from, from + digits - 1))
  local after = min(max(count + change, 0), 10 ^ digits - 1)
  if place > 0 then sum = sum + after - count end
  return format('%013.0f%013.0f', head + policy.lasts, sum)
    .. sub(text, begins, from - 1) .. format(policy.form, after) .. sub(text, from + digits)
end

function kinds.f(body, policy, change)
  local ends, used = then_ - then_ % policy.window + policy.window, 0
  if ends <= now then return end
  if #body > 13 and number(sub(body, 1, 13)) >= ends then
    if number(sub(body, 1, 13)) > ends then return end
    used = number(sub(body, 14))
  end
  return format('%013.0f%016.0f', ends, max(used + change, 0))
end

function kinds.g(body, policy, change)
  local due = #body > 13 and number(sub(body, 14)) or 0
  if change > 0 then due = max(due, then_ * 1000) end
  local after = max(due + change * policy.window * 1000 / policy.limit, 0)
  return format('%013.0f%016.0f', ceil(after / 1000), after)
end

function kinds.l(body, policy, change)
  local stamp, before, after, ends = format('%013.0f', then_), {}, {}, sub(body, 1, 13)
  for from = 14, #body, 13 do
    local entry = sub(body, from, from + 12)
    if entry == stamp and change < 0 then
      change = change + 1
    elseif entry <= stamp then
      before[#before + 1] = entry
    else
      after[#after + 1] = entry
    end
  end
  if then_ > now - policy.window then
    for _ = 1, change do before[#before + 1] = stamp end
  end
  if #before + #after == 0 then return EMPTY end
  ends = format('%013.0f', max(number(ends), then_ + policy.window))
  return ends .. table.concat(before) .. table.concat(after)
end

function kinds.c(body, policy, change)
  local held, found, ends = {}, false, now
  for from = 14, #body, 29 do
    local entry, until_ = sub(body, from + 13, from + 28), number(sub(body, from, from + 12))
    if entry == lease and until_ > now then
      found = true
      until_ = change > 0 and now + policy.a or 0
    end
    if until_ > now then
      held[#held + 1] = format('%013.0f', until_) .. entry
      ends = max(ends, until_)
    end
  end
  return found and format('%013.0f', ends) .. table.concat(held) or nil
end

function kinds.b(body, policy, change)
  return format('%013.0f', max(now + change, number(sub(body, 1, 13))))
end

local reply = {}
local values = redis.call('MGET', unpack(KEYS))
for k = 1, #KEYS do
  local form = forms[number(ARGV[at])]
  local state = open_key(KEYS[k], values[k], form)
  for i = 1, form.count do
    local policy, change, body = form[i], number(ARGV[at + i]), nil
    if change ~= 0 then
      body = kinds[policy.kind](state.bodies[i] or EMPTY, policy, change)
    end
    if body then state.bodies[i], state.changed = body, true end
    reply[#reply + 1] = body and 1 or 0
  end
  at = at + 1 + form.count
end
close_keys()
return reply
