-- The value under one rate-limit key, for rate_take.lua and rate_adjust.lua, which begin with this text.
--
-- A value is 13 digits, when the sections that are not ours end, then one section a policy:
--     <name>:<kind>:<window in ms>:<shape>= <length of the body, 5 digits> <body>
-- A body begins with 13 digits, the millisecond after which it means nothing. A caller with other policies on the same key
-- keeps ours and we keep theirs, so a new version of an application may run beside the old one. What cannot be read is
-- treated as nothing: a key that somebody else wrote must not stop others.
-- Everything is decimal text: it needs no library of the store's, and a person can read it.
--
-- Both scripts have in ARGV from the third word on how many forms there are, and each: how many policies, and for each of
-- them 7 words: mark, kind, limit, window in ms, a, b, 1 if only watched.
--     kind  r sliding: a sub-windows, b digits of each   f fixed   g GCRA: a burst   l log   c concurrency: a lease in ms
--           b block: refuses while a penalty lasts
local sub, find, format, rep = string.sub, string.find, string.format, string.rep
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local number = tonumber
local ROUNDING = 0.000001 -- far below one request, far above what floating-point numbers lose
local EMPTY = '0000000000000' -- the body of a policy that has counted nothing

local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = floor(micros / 1000)

local forms, at = {}, 4
for f = 1, number(ARGV[3]) do
  local form = {count = number(ARGV[at])}
  at = at + 1
  for i = 1, form.count do
    local policy = {
      mark = ARGV[at], kind = ARGV[at + 1], limit = number(ARGV[at + 2]), window = number(ARGV[at + 3]),
      a = number(ARGV[at + 4]), b = number(ARGV[at + 5]), watched = ARGV[at + 6] == '1'}
    if policy.kind == 'r' then
      policy.slot = policy.window / policy.a
      policy.share = ceil(policy.limit / policy.a) -- what an even pace puts into a sub-window
      policy.lasts = policy.window + policy.slot
      policy.form = '%0' .. policy.b .. '.0f'
    end
    form[i] = policy
    at = at + 7
  end
  forms[f] = form
end

-- The bodies of a form's policies, and the rest of the value with its end.
local function read(value, form)
  local bodies = {}
  if not value then return bodies, '', 0 end
  local from, same = 14, true
  for i = 1, form.count do
    local mark = form[i].mark
    local stop = from + #mark
    local length = sub(value, from, stop - 1) == mark and number(sub(value, stop, stop + 4))
    if not length then
      same = false
      break
    end
    from = stop + 5 + length
    bodies[i] = sub(value, stop + 5, from - 1)
  end
  if same then
    if from > #value then return bodies, '', 0 end
    local ends = number(sub(value, 1, 13)) or 0
    if ends > now then return bodies, sub(value, from), ends end
    return bodies, '', 0
  end
  -- Somebody with other policies wrote it: take ours out, and keep what still means something.
  local ours, rest, rest_ends = {}, '', 0
  for i = 1, form.count do ours[form[i].mark] = i end
  bodies, from = {}, 14
  while from <= #value do
    local stop = find(value, '=', from, true)
    local length = stop and number(sub(value, stop + 1, stop + 5))
    if not length then break end
    local mark, body = sub(value, from, stop), sub(value, stop + 6, stop + 5 + length)
    local ends = number(sub(body, 1, 13)) or 0
    if ours[mark] then
      bodies[ours[mark]] = body
    elseif ends > now then
      rest = rest .. sub(value, from, stop + 5 + length)
      rest_ends = max(rest_ends, ends)
    end
    from = stop + 6 + length
  end
  return bodies, rest, rest_ends
end

-- Keys that are open, by name. One key may be asked about several times in a call, so it is written once, at the end.
local open = {}

-- An open key's value, and when the longest of its sections ends.
local function text_of(state)
  local form, bodies, text = state.form, state.bodies, format('%013.0f', state.rest_ends)
  local ends = max(state.rest_ends, now)
  for i = 1, form.count do
    local body = bodies[i] or EMPTY
    text = text .. form[i].mark .. format('%05d', #body) .. body
    ends = max(ends, number(sub(body, 1, 13)))
  end
  if state.rest ~= '' then text = text .. state.rest end
  return text, ends
end

local function open_key(key, value, form)
  local state = open[key]
  if state then
    if state.form == form then return state end
    value = text_of(state)
  end
  local bodies, rest, rest_ends = read(value, form)
  local again = {form = form, bodies = bodies, rest = rest, rest_ends = rest_ends, changed = state and state.changed}
  open[key] = again
  return again
end

-- Write what has changed; it lives as long as the longest of its sections, and a second.
local function close_keys()
  for key, state in pairs(open) do
    if state.changed then
      local text, ends = text_of(state)
      redis.call('SET', key, text, 'PX', ends - now + 1000)
    end
  end
end

-- A sliding window as a ring of sub-windows, oldest first: one more than the window has, because the oldest is partly outside.
-- Its body: the end, 13 digits of the sum without the oldest, the sub-windows. Returned: the start of the newest, the sum, and
-- a text with the place in it where the ring begins.
local function ring_at(body, policy)
  local slot, digits = policy.slot, policy.b
  local head = now - now % slot
  if #body > 13 then
    local before = number(sub(body, 1, 13)) - policy.lasts
    local passed = (head - before) / slot
    if passed <= policy.a then
      local sum = number(sub(body, 14, 26))
      if passed <= 0 then return before, sum, body, 27 end -- less than 0: the server's clock was set back
      for from = 27 + digits, 27 + passed * digits, digits do sum = sum - number(sub(body, from, from + digits - 1)) end
      return head, sum, sub(body, 27 + passed * digits) .. rep('0', digits * passed), 1
    end
  end
  return head, 0, rep('0', digits * (policy.a + 1)), 1
end
