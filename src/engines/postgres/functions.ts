import { RESERVED_EVENTS } from "../../protocol/protocol.ts";

/** The functions that write the tables, for the engine, transactions and triggers. @param s the quoted schema and a dot. */
export const functions = (s: string): string => `
create or replace function ${s}noroshi_now() returns bigint language sql volatile as $$
  select (extract(epoch from clock_timestamp()) * 1000)::bigint
$$;

create or replace function ${s}noroshi_key(variadic parts text[]) returns bytea language sql immutable as $$
  select sha256(convert_to(array_to_json(parts)::text, 'UTF8'))
$$;

-- The channel name of LISTEN and NOTIFY.
create or replace function ${s}noroshi_subject(p_namespace text) returns text language sql immutable as $$
  select 'noroshi_' || left(encode(${s}noroshi_key('${s.replaceAll("'", "''")}', p_namespace), 'hex'), 32)
$$;

-- Locks a name until the end of the transaction. Lock several names in one order, to avoid deadlocks.
create or replace function ${s}noroshi_lock(p_name text) returns void language sql volatile as $$
  select pg_advisory_xact_lock(hashtextextended('${s.replaceAll("'", "''")}' || p_name, 0))
$$;

-- A transaction that begins a history and one that publishes without a history exclude each other: the second has to end the history, and
-- would not see it before the commit. The channels share 64 locks, called gates, because a transaction may hold only so many locks.
create or replace function ${s}noroshi_gate(p_namespace text, p_name text) returns integer language sql immutable as $$
  select hashtext(p_namespace || ' ' || p_name) & 63
$$;

-- Locks a gate: exclusively to begin a history, shared to publish without one.
create or replace function ${s}noroshi_enter(p_gate integer, p_begins boolean) returns void language plpgsql as $$
begin
  if p_begins then
    perform pg_advisory_xact_lock(hashtext('${s.replaceAll("'", "''")}noroshi_gate'), p_gate);
  else
    perform pg_advisory_xact_lock_shared(hashtext('${s.replaceAll("'", "''")}noroshi_gate'), p_gate);
  end if;
end $$;

-- Identifies the state of the database: the token and the timeline, which changes when a standby is promoted or a backup is recovered to
-- a point in time.
create or replace function ${s}noroshi_run() returns text language plpgsql as $$
declare
  v_timeline text := '';
  v_token text;
begin
  begin
    v_timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
  exception when others then
    null; -- Not every service has it. There, nodes notice a promotion by the positions that they know.
  end;
  select token into v_token from ${s}noroshi_state;
  if v_token is null then
    insert into ${s}noroshi_state values (1, gen_random_uuid()::text) on conflict do nothing;
    select token into v_token from ${s}noroshi_state;
  end if;
  return v_token || '.' || v_timeline;
end $$;

-- Returns the history of a channel. It is begun if there is none, it has expired, or it lacks the position that the caller knows.
create or replace function ${s}noroshi_channel(
  p_namespace text, p_name text, p_size bigint, p_ttl bigint, p_epoch text, p_pos bigint, p_lock boolean
) returns ${s}noroshi_channels language plpgsql as $$
declare
  c ${s}noroshi_channels;
  v_run text := ${s}noroshi_run();
  v_lock boolean := p_lock;
  v_now bigint;
begin
  loop
    if v_lock then
      select * into c from ${s}noroshi_channels where namespace = p_namespace and name = p_name for update;
    else
      select * into c from ${s}noroshi_channels where namespace = p_namespace and name = p_name;
    end if;
    v_now := ${s}noroshi_now();
    if c.id is null then
      -- The caller has locked the gate already, unless the history was ended meanwhile.
      perform ${s}noroshi_enter(${s}noroshi_gate(p_namespace, p_name), true);
      insert into ${s}noroshi_channels (namespace, name, run, epoch, size, ttl, expires)
        values (p_namespace, p_name, v_run, gen_random_uuid()::text, p_size, p_ttl, v_now + p_ttl)
        on conflict do nothing returning * into c;
      if c.id is not null then return c; end if;
      v_lock := true;
      continue;
    end if;
    if c.run = v_run and c.expires > v_now and c.pos < 9e14 and (p_epoch is distinct from c.epoch or c.pos >= p_pos) then
      return c;
    end if;
    if v_lock then return ${s}noroshi_begin(c.id, v_run, p_ttl); end if;
    v_lock := true;
  end loop;
end $$;

-- Begins a new history in the row of an earlier one, with another epoch.
create or replace function ${s}noroshi_begin(p_id bigint, p_run text, p_ttl bigint)
returns ${s}noroshi_channels language plpgsql as $$
declare
  c ${s}noroshi_channels;
begin
  delete from ${s}noroshi_publications where channel = p_id;
  update ${s}noroshi_channels
    set run = p_run, epoch = gen_random_uuid()::text, pos = 0, n = 0, gone = 0, expires = ${s}noroshi_now() + p_ttl
    where id = p_id returning * into c;
  return c;
end $$;

-- Returns the answer to a publication whose id was published before. A new id is stored with its position, and null is returned.
create or replace function ${s}noroshi_once(
  p_namespace text, p_channel text, p_once text, p_window bigint, p_epoch text, p_pos bigint
) returns json language plpgsql as $$
declare
  v_now bigint := ${s}noroshi_now();
  v_key bytea := ${s}noroshi_key(p_namespace, p_channel, p_once);
  v_id ${s}noroshi_ids;
begin
  select * into v_id from ${s}noroshi_ids where key = v_key and expires > v_now;
  if v_id.key is not null then return json_build_array(v_id.epoch, v_id.pos, true); end if;
  insert into ${s}noroshi_ids values (v_key, p_epoch, p_pos, v_now + p_window)
    on conflict (key) do update set epoch = excluded.epoch, pos = excluded.pos, expires = excluded.expires;
  return null;
end $$;

-- The next position. Steps are random, so that a publication hardly ever gets the position of one that was lost.
create or replace function ${s}noroshi_next(p_pos bigint) returns bigint language sql volatile as $$
  select p_pos + 1 + floor(random() * 999998)::bigint
$$;

-- Adds a publication to a history. The caller has locked its row, and saves it afterwards.
create or replace function ${s}noroshi_add(c ${s}noroshi_channels, p_pos bigint, p_envelope text) returns void language plpgsql as $$
begin
  insert into ${s}noroshi_publications values (c.id, p_pos, c.pos, c.n + 1, ${s}noroshi_now(), p_envelope);
  perform pg_notify(${s}noroshi_subject(c.namespace), 'p ' || c.epoch || ' ' || p_pos || ' ' || c.name);
end $$;

-- Saves the end of a history after new publications, and removes old ones. Publications beyond its size stay for 10 s, so that nodes can
-- read those that they were notified of. If no publication follows, the sweep removes them.
create or replace function ${s}noroshi_save(c ${s}noroshi_channels, p_slack bigint, p_added bigint) returns void language plpgsql as $$
declare
  v_now bigint := ${s}noroshi_now();
  v_gone bigint;
begin
  with removed as (
    delete from ${s}noroshi_publications where channel = c.id and pos in (
      select oldest.pos from (
        select p.pos, p.n, p.at from ${s}noroshi_publications p where p.channel = c.id order by p.pos limit 20 * p_added
      ) oldest where oldest.at < v_now - 10000 and (oldest.n <= c.n - c.size or oldest.at <= v_now - c.ttl)
    ) returning n
  ) select max(n) into v_gone from removed;
  update ${s}noroshi_channels set pos = c.pos, n = c.n, gone = greatest(gone, v_gone), size = c.size, ttl = c.ttl,
    expires = greatest(c.expires, v_now + c.ttl + p_slack) where id = c.id;
end $$;

create or replace function ${s}noroshi_append(
  p_namespace text, p_channel text, p_envelope text, p_size bigint, p_ttl bigint, p_slack bigint,
  p_epoch text, p_pos bigint, p_once text, p_window bigint
) returns json language plpgsql as $$
declare
  c ${s}noroshi_channels := ${s}noroshi_channel(p_namespace, p_channel, p_size, p_ttl, p_epoch, p_pos, true);
  v_pos bigint := ${s}noroshi_next(c.pos);
  v_known json;
begin
  if p_once is not null then
    v_known := ${s}noroshi_once(p_namespace, p_channel, p_once, p_window, c.epoch, v_pos);
    if v_known is not null then return v_known; end if;
  end if;
  perform ${s}noroshi_add(c, v_pos, p_envelope);
  c.pos := v_pos;
  c.n := c.n + 1;
  c.size := p_size;
  c.ttl := p_ttl;
  perform ${s}noroshi_save(c, p_slack, 1);
  return json_build_array(c.epoch, v_pos, false);
end $$;

-- Stores an envelope for other nodes, and notifies them.
create or replace function ${s}noroshi_mail(p_namespace text, p_kind text, p_channel text, p_envelope text)
returns json language plpgsql as $$
declare
  v_id bigint;
begin
  insert into ${s}noroshi_mail (at, envelope) values (${s}noroshi_now(), p_envelope) returning id into v_id;
  perform pg_notify(${s}noroshi_subject(p_namespace), 'm ' || v_id || ' ' || p_kind || ' ' || p_channel);
  return to_json(v_id);
end $$;

-- Publishes without a history, and ends a history that other nodes keep, which would lack this publication. The caller has locked the
-- gate of the channel or called noroshi_find; otherwise it would miss a history that another transaction is beginning.
create or replace function ${s}noroshi_event(p_namespace text, p_channel text, p_envelope text, p_once text, p_window bigint)
returns json language plpgsql as $$
declare
  v_now bigint := ${s}noroshi_now();
  v_key bytea := ${s}noroshi_key(p_namespace, p_channel, p_once);
  v_id ${s}noroshi_ids;
begin
  if p_once is not null then
    perform ${s}noroshi_lock(p_channel);
    insert into ${s}noroshi_ids as i values (v_key, '', 0, v_now + p_window)
      on conflict (key) do update set epoch = '', pos = 0, expires = excluded.expires where i.expires <= v_now
      returning * into v_id;
    if v_id.key is null then return null; end if;
  end if;
  perform ${s}noroshi_end(p_namespace, p_channel, null);
  return ${s}noroshi_mail(p_namespace, 'event', p_channel, p_envelope);
end $$;

create or replace function ${s}noroshi_end(p_namespace text, p_channel text, p_epoch text)
returns json language plpgsql as $$
declare
  v_id bigint;
begin
  delete from ${s}noroshi_channels
    where namespace = p_namespace and name = p_channel and (p_epoch is null or epoch = p_epoch) returning id into v_id;
  if v_id is not null then delete from ${s}noroshi_publications where channel = v_id; end if;
  return null;
end $$;

-- Locks the row of a history, or its name if there is none, so that no other transaction begins one before this one ends. A history that
-- an older snapshot does not show causes a serialization failure.
create or replace function ${s}noroshi_find(p_namespace text, p_name text) returns ${s}noroshi_channels language plpgsql as $$
declare
  c ${s}noroshi_channels;
  v_id bigint;
begin
  loop
    select * into c from ${s}noroshi_channels where namespace = p_namespace and name = p_name for update;
    if c.id is not null then return c; end if;
    insert into ${s}noroshi_channels (namespace, name, run, epoch, size, ttl, expires) values (p_namespace, p_name, '', '', 0, 0, 0)
      on conflict do nothing returning id into v_id;
    if v_id is not null then
      delete from ${s}noroshi_channels where id = v_id;
      return null;
    end if;
  end loop;
end $$;

-- Publishes the outbox at the commit, so that positions are in the order of the commits and the transaction holds no lock before.
create or replace function ${s}noroshi_flush() returns trigger language plpgsql as $$
declare
  o record;
  c ${s}noroshi_channels;
  v_namespace text;
  v_channel text;
  v_added bigint := 0;
  v_pos bigint;
  v_envelope text;
  v_is_new boolean;
  v_is_free boolean := false;
  v_gate integer;
begin
  -- The trigger fires for each row; the first time it publishes all rows.
  perform 1 from ${s}noroshi_outbox where xact = new.xact and id = new.id;
  if not found then return null; end if;
  for v_gate in
    select distinct ${s}noroshi_gate(w.namespace, w.channel) from ${s}noroshi_outbox w
      left join ${s}noroshi_channels k on k.namespace = w.namespace and k.name = w.channel
      where w.xact = new.xact group by w.namespace, w.channel
      having bool_or(w.size is not null) and bool_or(w.size is null or k.id is null) order by 1
  loop
    perform ${s}noroshi_enter(v_gate, true);
  end loop;
  -- In one order for all transactions, to avoid deadlocks.
  for o in
    with taken as (delete from ${s}noroshi_outbox where xact = pg_current_xact_id() returning *)
    select *, bool_or(size is null and event is null and once_id is not null) over (partition by namespace, channel) as locks
      from taken order by namespace collate "C", channel collate "C", id
  loop
    if (o.namespace, o.channel) is distinct from (v_namespace, v_channel) then
      -- Once for each channel, because each update of a row slows later ones in the same transaction.
      if v_added > 0 then perform ${s}noroshi_save(c, 15000, v_added); end if;
      c := null;
      v_added := 0;
      v_is_free := false;
      v_namespace := o.namespace;
      v_channel := o.channel;
      -- Locks the name before the row, like noroshi_call.
      if o.locks then perform ${s}noroshi_lock(o.channel); end if;
    end if;
    if o.size is not null then
      if c.id is null then c := ${s}noroshi_channel(o.namespace, o.channel, o.size, o.ttl, null, 0, true); end if;
      c.size := o.size;
      c.ttl := o.ttl;
      v_is_free := false;
    elsif c.id is null and not v_is_free then
      c := ${s}noroshi_find(o.namespace, o.channel);
      v_is_free := c.id is null;
      if c.id is not null then c := ${s}noroshi_channel(o.namespace, o.channel, c.size, c.ttl, null, 0, true); end if;
    end if;
    v_envelope := o.body;
    if o.event is not null then
      v_envelope := E'\\n' || json_build_object(
        'v', 2, 'in', '', 'kind', case when c.id is null then 'event' else 'publication' end,
        'node', 'sql.' || gen_random_uuid(), 'number', 1, 'time', ${s}noroshi_now(), 'event', o.event
      ) || E'\\n' || o.body;
    end if;
    if c.id is null or (o.size is null and o.event is null) then
      if v_added > 0 then perform ${s}noroshi_save(c, 15000, v_added); end if;
      c := null;
      v_added := 0;
      perform ${s}noroshi_event(o.namespace, o.channel, v_envelope, o.once_id, o.once_window);
    else
      v_pos := ${s}noroshi_next(c.pos);
      v_is_new := true;
      if o.once_id is not null then
        v_is_new := ${s}noroshi_once(o.namespace, o.channel, o.once_id, o.once_window, c.epoch, v_pos) is null;
      end if;
      if v_is_new then
        perform ${s}noroshi_add(c, v_pos, v_envelope);
        c.pos := v_pos;
        c.n := c.n + 1;
        v_added := v_added + 1;
      end if;
    end if;
  end loop;
  if v_added > 0 then perform ${s}noroshi_save(c, 15000, v_added); end if;
  return null;
end $$;

drop trigger if exists noroshi_outbox_commit on ${s}noroshi_outbox;
create constraint trigger noroshi_outbox_commit after insert on ${s}noroshi_outbox
  deferrable initially deferred for each row execute function ${s}noroshi_flush();

-- The length of a text in UTF-16 units, as in JavaScript.
create or replace function ${s}noroshi_length(p_text text) returns bigint language sql immutable as $$
  select length(regexp_replace(p_text, '[^\\u0001-\\uffff]', 'xx', 'g'))::bigint
$$;

-- Publishes from SQL, such as from a trigger, when the transaction commits. Nodes with a secret refuse it, because it is not signed.
create or replace function ${s}noroshi_publish(channel text, event text, data jsonb, namespace text default 'noroshi')
returns void language plpgsql as $$
begin
  if channel is null or channel !~ '^[A-Za-z0-9_.:/@=+~-]{1,255}$' then
    raise exception 'Cannot publish: % is not a valid channel name', quote_nullable(channel);
  end if;
  if event is null or event in (${
  [...RESERVED_EVENTS].map((name) => `'${name}'`).join()
}) or ${s}noroshi_length(event) not between 1 and 64 then
    raise exception 'Cannot publish to %: the event must have 1 to 64 characters and not be reserved by the protocol', channel;
  end if;
  -- A character has at least one byte, so that most texts need not be counted.
  if octet_length(data::text) > 898000 and ${s}noroshi_length(data::text) > 898000 then
    raise exception 'Cannot publish to %: the data has more than 898,000 characters', channel;
  end if;
  insert into ${s}noroshi_outbox (namespace, channel, event, body)
    values (noroshi_publish.namespace, noroshi_publish.channel, noroshi_publish.event, coalesce(data, 'null')::text);
end $$;
`;
