/**
 * The Lua scripts of the Redis engine, each an atomic step. They share a preamble with the rules for time, epochs and expiry.
 *
 * The id of a stream entry is `<offset>-<server time in ms><step, 6 digits>`. The step is the difference to the previous offset. It is
 * random, so that a publication does not get the offset of one that was lost.
 */
const PREAMBLE = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end

-- Identifies the data that histories belong to: the server process or, if persistent, a token that changes when data was lost.
local function runOf(key, run)
  if run ~= '' then return run end
  return redis.call('HGET', key, 'token') or ''
end

local function begin(meta, stream, run, epoch)
  redis.call('DEL', meta, stream)
  redis.call('HSET', meta, 'epoch', epoch, 'offset', '0', 'run', run)
  return epoch, 0
end

-- The position of the channel; nothing if it has lost data: it is of another run, or behind the position that the node knows.
local function positionOf(meta, run, knownEpoch, knownOffset)
  local at = redis.call('HMGET', meta, 'epoch', 'offset', 'run')
  local offset = tonumber(at[2])
  if not at[1] or not offset or at[3] ~= run or (at[1] == knownEpoch and offset < tonumber(knownOffset)) then return end
  return at[1], offset
end

-- Extends the expiry of a key, but never shortens it, because nodes may declare different times.
local function keep(key, ttl)
  redis.call('PEXPIRE', key, text(math.max(redis.call('PTTL', key), ttl)))
end

local function expire(stream, ttl)
  while true do
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not first or tonumber(string.match(first[1], '-(%d*)%d%d%d%d%d%d$')) > now - ttl then return end
    redis.call('XDEL', stream, first[1])
  end
end
`;

/** KEYS: three unused keys. ARGV: subjects. Calls each command that the other scripts use, so that a missing permission makes `start` fail. */
export const CHECK: string = `
local hash, stream, set = KEYS[1], KEYS[2], KEYS[3]
local function may(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then error('NOPERM Cannot call ' .. command .. ': ' .. answer.err) end
end
may('TIME')
may('HSET', hash, 'a', '1')
may('HGET', hash, 'a')
may('HMGET', hash, 'a')
may('HINCRBY', hash, 'a', 1)
may('HLEN', hash)
may('HVALS', hash)
may('HDEL', hash, 'b')
may('PTTL', hash)
may('EXISTS', hash)
may('PEXPIRE', hash, 1000)
may('XADD', stream, '1-1', 'e', '')
may('XRANGE', stream, '-', '+')
may('XREVRANGE', stream, '+', '-')
may('XDEL', stream, '1-1')
may('ZADD', set, 1, 'a')
may('ZSCORE', set, 'a')
may('ZRANGEBYSCORE', set, '-inf', '+inf')
may('ZREM', set, 'a')
may('SADD', set, 'a')
may('SMEMBERS', set)
may('SISMEMBER', set, 'a')
may('SREM', set, 'b')
may('SPOP', set, 1)
may('DEL', hash, stream, set)
for _, subject in ipairs(ARGV) do may('PUBLISH', subject, '') end
return 1`;

/**
 * KEYS: run, nodes. ARGV: current run of the server, the run that this node last knew, number of publications that it knows, promotion, new
 * token, node. Decides after a restart of a persistent Redis whether histories are intact; if not, sets the new token, which ends them.
 * Returns 0 if this node cannot decide that and another node with a lease may: try again.
 */
export const START: string = `${PREAMBLE}
local at = redis.call('HMGET', KEYS[1], 'id', 'token', 'seq', 'promotion')
local seq = tonumber(at[3]) or 0
local isKnown = at[1] == ARGV[1] or (at[1] == ARGV[2] and ARGV[2] ~= '')
local isPromoted = ARGV[4] ~= '' and ARGV[4] ~= at[4]
if at[2] and not isKnown and not isPromoted and seq >= tonumber(ARGV[3]) then
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. text(now), '+inf')) do
    if node ~= ARGV[6] then return 0 end
  end
end
if not at[2] or not isKnown or isPromoted or seq < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'token', ARGV[5], 'seq', math.max(seq, tonumber(ARGV[3])))
end
redis.call('HSET', KEYS[1], 'id', ARGV[1])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'promotion', ARGV[4]) end
return 1`;

/**
 * KEYS: meta, stream, run, and the id of the publication if it has one. ARGV: run, new epoch, epoch and offset of the known position,
 * size, ttl, slack, step, subject, window of the id, envelope. Appends and publishes. Returns epoch, offset and, if persistent, the
 * number of publications, or -1 if the id was published before. The id is a hash, because the other scripts use the same commands.
 */
export const PUBLISH: string = `${PREAMBLE}
if KEYS[4] then
  local at = redis.call('HMGET', KEYS[4], 'epoch', 'offset')
  if at[1] then return { at[1], at[2], -1 } end
end
local run = runOf(KEYS[3], ARGV[1])
local epoch, previous = positionOf(KEYS[1], run, ARGV[3], ARGV[4])
if not epoch or previous > 9e14 then epoch, previous = begin(KEYS[1], KEYS[2], run, ARGV[2]) end
local id = '-' .. text(now) .. ARGV[8]
local offset = text(previous + ARGV[8])
local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', ARGV[5], offset .. id, 'e', ARGV[11])
-- If the stream is ahead of meta, one of the two was restored from an older state.
if type(added) == 'table' and string.find(added.err, 'equal or smaller', 1, true) then
  epoch, previous = begin(KEYS[1], KEYS[2], run, ARGV[2])
  offset = text(ARGV[8])
  added = redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[5], offset .. id, 'e', ARGV[11])
end
if type(added) == 'table' then return added end
redis.call('HSET', KEYS[1], 'offset', offset)
expire(KEYS[2], tonumber(ARGV[6]))
keep(KEYS[1], ARGV[6] + ARGV[7])
keep(KEYS[2], tonumber(ARGV[6]))
if KEYS[4] then
  redis.call('HSET', KEYS[4], 'epoch', epoch, 'offset', offset)
  redis.call('PEXPIRE', KEYS[4], ARGV[10])
end
local count = ARGV[1] == '' and redis.call('HINCRBY', KEYS[3], 'seq', 1) or 0
redis.call('PUBLISH', ARGV[9], epoch .. '\\n' .. offset .. ' ' .. ARGV[8] .. ' ' .. count .. '\\n' .. ARGV[11])
return { epoch, offset, count }`;

/** KEYS: answer. ARGV: ttl, text. Stores the text unless one is stored. Returns the stored one, or `''`. */
export const CLAIM: string = `
local text = redis.call('HGET', KEYS[1], 'text')
if text then return text end
redis.call('HSET', KEYS[1], 'text', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return ''`;

/** KEYS: answer. ARGV: ttl, text. Replaces the text. */
export const SETTLE: string = `
redis.call('HSET', KEYS[1], 'text', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1`;

/** KEYS: id. ARGV: window, subject, text. Publishes without a history, unless the id was published before. */
export const PUBLISH_ONCE: string = `
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'epoch', '', 'offset', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1`;

/**
 * KEYS: meta, stream, run. ARGV: run, new epoch, epoch and offset of the known position, ttl, slack, limit, epoch of the position to
 * read after or nothing, its offset, whether that position is known to have existed, bytes of a page, whether to check all entries that
 * follow instead of the page only. Reads 8 entries at a time, because entries past the page are only checked.
 */
export const READ: string = `${PREAMBLE}
local run = runOf(KEYS[3], ARGV[1])
local epoch, offset = positionOf(KEYS[1], run, ARGV[3], ARGV[4])
if not epoch then epoch, offset = begin(KEYS[1], KEYS[2], run, ARGV[2]) end
keep(KEYS[1], ARGV[5] + ARGV[6])
local function restart()
  epoch, offset = begin(KEYS[1], KEYS[2], run, ARGV[2])
  redis.call('PEXPIRE', KEYS[1], text(ARGV[5] + ARGV[6]))
  return { epoch, text(offset), ARGV[8] == '' and 1 or 0, {}, 0 }
end
expire(KEYS[2], tonumber(ARGV[5]))
-- If meta and stream disagree, one of the two was restored from an older state.
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if last and tonumber(string.match(last[1], '^%d+')) ~= offset then return restart() end
local limit = tonumber(ARGV[7])
if ARGV[8] == '' then
  local entries = limit > 0 and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', ARGV[7]) or {}
  return { epoch, text(offset), 1, entries, 0 }
end
local after = tonumber(ARGV[9])
local refused = { epoch, text(offset), 0, {}, 0 }
if ARGV[8] ~= epoch or after > offset then return refused end
local page, bytes, count, at, hasMore = {}, 0, 0, after, 0
while at < offset do
  local entries = redis.call('XRANGE', KEYS[2], text(at + 1), '+', 'COUNT', 8)
  if #entries == 0 then return refused end
  for _, entry in ipairs(entries) do
    local entryOffset, step = string.match(entry[1], '^(%d+)-%d*(%d%d%d%d%d%d)$')
    -- The first entry follows an earlier position than the one that has existed: the stream was set back and continued.
    if ARGV[10] == '1' and at == after and entryOffset - step < after then return restart() end
    if entryOffset - step ~= at then return refused end
    at, count, bytes = tonumber(entryOffset), count + 1, bytes + #entry[2][2] + 200
    if count > limit then return refused end
    if hasMore == 0 and (#page == 0 or bytes <= tonumber(ARGV[11])) then page[#page + 1] = entry
    elseif ARGV[12] == '0' then return { epoch, text(offset), 1, page, 1 }
    else hasMore = 1 end
  end
end
return { epoch, text(offset), 1, page, hasMore }`;

/** KEYS: metas, run. ARGV: run, then for each meta its expiry in ms, and epoch and offset of the known position. */
export const LATEST_POSITIONS: string = `${PREAMBLE}
local latest = {}
local run = runOf(KEYS[#KEYS], ARGV[1])
for number = 1, #KEYS - 1 do
  local first = number * 3 - 1
  local epoch, offset = positionOf(KEYS[number], run, ARGV[first + 1], ARGV[first + 2])
  if epoch then keep(KEYS[number], tonumber(ARGV[first])) end
  latest[number] = epoch and { epoch, text(offset) } or {}
end
return latest`;

/** KEYS: meta, stream. ARGV: epoch. Deletes the history if it is of this epoch. */
export const END: string = `
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1`;

/**
 * KEYS: nodes. ARGV: node, lease, prefix, subject, text, then channels with members on the node. Renews the lease. Returns 1 if it was
 * valid and the node's members in these channels are stored. Removes the members of dead nodes, in at most 500 channels of each, because
 * Redis runs nothing else meanwhile.
 */
export const HEARTBEAT: string = `${PREAMBLE}
local expiry = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], text(now + ARGV[2]), ARGV[1])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now))) do
  local channels = redis.call('SPOP', ARGV[3] .. 'c:' .. node, 500)
  for _, channel in ipairs(channels) do
    redis.call('DEL', ARGV[3] .. 'm:' .. node .. ':' .. channel)
    redis.call('SREM', ARGV[3] .. 'w:' .. channel, node)
  end
  if #channels < 500 then redis.call('ZREM', KEYS[1], node) end
end
redis.call('PUBLISH', ARGV[4], ARGV[5])
if not expiry or tonumber(expiry) <= now then return 0 end
-- Checked because Redis may evict keys when its memory is full.
for number = 6, #ARGV do
  local isKept = redis.call('HLEN', ARGV[3] .. 'm:' .. ARGV[1] .. ':' .. ARGV[number]) > 0 and
    redis.call('SISMEMBER', ARGV[3] .. 'w:' .. ARGV[number], ARGV[1]) == 1 and
    redis.call('SISMEMBER', ARGV[3] .. 'c:' .. ARGV[1], ARGV[number]) == 1
  if not isKept then return 0 end
end
return 1`;

/** KEYS: orders. ARGV: subject, envelope, maximum count, ttl in ms. Publishes an order and stores it. */
export const STORE_ORDER: string = `${PREAMBLE}
redis.call('PUBLISH', ARGV[1], ARGV[2])
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], '*', 'e', ARGV[2])
for _, order in ipairs(redis.call('XRANGE', KEYS[1], '-', text(now - ARGV[4]))) do redis.call('XDEL', KEYS[1], order[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`;

/** KEYS: nodes. Returns the nodes whose lease is valid. */
export const NODES: string = `${PREAMBLE}
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf')`;

/** KEYS: members of the node, channels of the node, nodes of the channel. ARGV: user, envelope, channel, node, subject, ttl in ms. */
export const JOIN: string = `
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('SADD', KEYS[3], ARGV[4])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[6]) end
redis.call('PUBLISH', ARGV[5], 'member\\n' .. ARGV[2])
return 1`;

/** KEYS and ARGV as for {@link JOIN}. */
export const LEAVE: string = `
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[3])
  redis.call('SREM', KEYS[3], ARGV[4])
end
redis.call('PUBLISH', ARGV[5], 'member\\n' .. ARGV[2])
return 1`;

/** KEYS: nodes of the channel, nodes. ARGV: prefix, channel. Returns the envelopes of members on nodes whose lease is valid. */
export const MEMBERS: string = `${PREAMBLE}
local all = {}
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local expiry = redis.call('ZSCORE', KEYS[2], node)
  if expiry and tonumber(expiry) > now then
    for _, envelope in ipairs(redis.call('HVALS', ARGV[1] .. 'm:' .. node .. ':' .. ARGV[2])) do all[#all + 1] = envelope end
  end
end
return all`;
