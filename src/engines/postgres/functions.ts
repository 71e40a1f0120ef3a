/** The functions that the tables are written by, for the engine, for transactions and for triggers. @param s as for the tables. */
export const functions = (s: string): string => `
create or replace function ${s}noroshi_now() returns bigint language sql volatile as $$
  select (extract(epoch from clock_timestamp()) * 1000)::bigint
$$;

create or replace function ${s}noroshi_key(variadic parts text[]) returns bytea language sql immutable as $$
  select sha256(convert_to(array_to_json(parts)::text, 'UTF8'))
$$;

-- The name that nodes listen to.
create or replace function ${s}noroshi_subject(p_namespace text) returns text language sql immutable as $$
  select 'noroshi_' || left(encode(${s}noroshi_key('${s.replaceAll("'", "''")}', p_namespace), 'hex'), 32)
$$;

-- Whoever locks several names locks them in one order.
create or replace function ${s}noroshi_lock(p_name text) returns void language sql volatile as $$
  select pg_advisory_xact_lock(hashtextextended('${s.replaceAll("'", "''")}' || p_name, 0))
$$;

-- The token and the timeline: a standby that is promoted, and a backup that is recovered to a point in time, begin another one.
create or replace function ${s}noroshi_run() returns text language plpgsql as $$
declare
  v_timeline text := '';
  v_token text;
begin
  begin
    v_timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
  exception when others then
    null; -- Not every service has it: there a promotion is noticed by what the nodes know.
  end;
  select token into v_token from ${s}noroshi_state;
  if v_token is null then
    insert into ${s}noroshi_state values (1, gen_random_uuid()::text) on conflict do nothing;
    select token into v_token from ${s}noroshi_state;
  end if;
  return v_token || '.' || v_timeline;
end $$;

-- The history of a channel, begun when there is none, or when it has lost what the caller knows of.
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

create or replace function ${s}noroshi_begin(p_id bigint, p_run text, p_ttl bigint)
returns ${s}noroshi_channels language plpgsql as $$
declare
  c ${s}noroshi_channels;
begin
  delete from ${s}noroshi_publications where channel = p_id;
  update ${s}noroshi_channels
    set run = p_run, epoch = gen_random_uuid()::text, pos = 0, n = 0, expires = ${s}noroshi_now() + p_ttl
    where id = p_id returning * into c;
  return c;
end $$;

-- Steps are random, so that a publication that replaces a lost one stands elsewhere. Publications that the size has no room for
-- stay for 10 s: nodes that were notified of them read them meanwhile.
create or replace function ${s}noroshi_append(
  p_namespace text, p_channel text, p_envelope text, p_size bigint, p_ttl bigint, p_slack bigint,
  p_epoch text, p_pos bigint, p_once text, p_window bigint
) returns json language plpgsql as $$
declare
  c ${s}noroshi_channels := ${s}noroshi_channel(p_namespace, p_channel, p_size, p_ttl, p_epoch, p_pos, true);
  v_now bigint := ${s}noroshi_now();
  v_pos bigint := c.pos + 1 + floor(random() * 999998)::bigint;
  v_key bytea := ${s}noroshi_key(p_namespace, p_channel, p_once);
  v_id ${s}noroshi_ids;
begin
  if p_once is not null then
    select * into v_id from ${s}noroshi_ids where key = v_key and expires > v_now;
    if v_id.key is not null then return json_build_array(v_id.epoch, v_id.pos, true); end if;
    insert into ${s}noroshi_ids values (v_key, c.epoch, v_pos, v_now + p_window)
      on conflict (key) do update set epoch = excluded.epoch, pos = excluded.pos, expires = excluded.expires;
  end if;
  insert into ${s}noroshi_publications values (c.id, v_pos, c.pos, c.n + 1, v_now, p_envelope);
  update ${s}noroshi_channels set pos = v_pos, n = c.n + 1, size = p_size, ttl = p_ttl,
    expires = greatest(c.expires, v_now + p_ttl + p_slack) where id = c.id;
  delete from ${s}noroshi_publications where channel = c.id and pos in (
    select oldest.pos from (
      select p.pos, p.n, p.at from ${s}noroshi_publications p where p.channel = c.id order by p.pos limit 20
    ) oldest where oldest.at < v_now - 10000 and (oldest.n <= c.n + 1 - p_size or oldest.at <= v_now - p_ttl)
  );
  perform pg_notify(${s}noroshi_subject(p_namespace), 'p ' || c.epoch || ' ' || v_pos || ' ' || p_channel);
  return json_build_array(c.epoch, v_pos, false);
end $$;

create or replace function ${s}noroshi_mail(p_namespace text, p_kind text, p_channel text, p_envelope text)
returns json language plpgsql as $$
declare
  v_id bigint;
begin
  insert into ${s}noroshi_mail (at, envelope) values (${s}noroshi_now(), p_envelope) returning id into v_id;
  perform pg_notify(${s}noroshi_subject(p_namespace), 'm ' || v_id || ' ' || p_kind || ' ' || p_channel);
  return to_json(v_id);
end $$;

-- Publishes without a history, and ends the one that others keep: it lacks this publication.
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

-- At commit: positions are given in the order of the commits, and no lock is held while the transaction works.
create or replace function ${s}noroshi_flush() returns trigger language plpgsql as $$
declare
  o ${s}noroshi_outbox;
  c ${s}noroshi_channels;
  v_size bigint;
  v_ttl bigint;
  v_envelope text;
begin
  -- All of the transaction at once, and in one order for all transactions: else two could wait for each other.
  for o in
    with taken as (delete from ${s}noroshi_outbox where xact = pg_current_xact_id() returning *)
    select * from taken order by namespace collate "C", channel collate "C", id
  loop
    v_size := o.size;
    v_ttl := o.ttl;
    v_envelope := o.body;
    if o.event is not null then
      select * into c from ${s}noroshi_channels where namespace = o.namespace and name = o.channel;
      v_size := c.size;
      v_ttl := c.ttl;
      v_envelope := E'\\n' || json_build_object(
        'v', 2, 'in', '', 'kind', case when v_size is null then 'event' else 'publication' end,
        'node', 'sql.' || gen_random_uuid(), 'number', 1, 'time', ${s}noroshi_now(), 'event', o.event
      ) || E'\\n' || o.body;
    end if;
    if v_size is null then
      perform ${s}noroshi_event(o.namespace, o.channel, v_envelope, o.once_id, o.once_window);
    else
      perform ${s}noroshi_append(
        o.namespace, o.channel, v_envelope, v_size, v_ttl, 15000, null, 0, o.once_id, o.once_window
      );
    end if;
  end loop;
  return null;
end $$;

drop trigger if exists noroshi_outbox_commit on ${s}noroshi_outbox;
create constraint trigger noroshi_outbox_commit after insert on ${s}noroshi_outbox
  deferrable initially deferred for each row execute function ${s}noroshi_flush();

-- Publishes from SQL, such as from a trigger: when the transaction commits. Not for nodes with a secret: it signs nothing.
create or replace function ${s}noroshi_publish(channel text, event text, data jsonb, namespace text default 'noroshi')
returns void language plpgsql as $$
begin
  if channel is null or channel !~ '^[A-Za-z0-9_.:/@=+~-]{1,255}$' then
    raise exception 'Cannot publish: % is not a valid channel name', quote_nullable(channel);
  end if;
  if event is null or length(event) not between 1 and 64 then
    raise exception 'Cannot publish to %: the event must have 1 to 64 characters', channel;
  end if;
  insert into ${s}noroshi_outbox (namespace, channel, event, body)
    values (noroshi_publish.namespace, noroshi_publish.channel, noroshi_publish.event, coalesce(data, 'null')::text);
end $$;
`;
