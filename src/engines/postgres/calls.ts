/** The functions that nodes call, through `noroshi_call`. @param s the quoted schema and a dot. */
export const calls = (s: string): string => `
-- A page of publications after a position, or the last publications. p: [name, channel, size, ttl, slack, epoch, position, limit,
-- maximum bytes, known epoch, known position, whether the position is known to have existed].
create or replace function ${s}noroshi_read(p_namespace text, p json) returns json language plpgsql as $$
declare
  c ${s}noroshi_channels := ${s}noroshi_channel(
    p_namespace, p->>1, (p->>2)::bigint, (p->>3)::bigint, p->>9, (p->>10)::bigint, false
  );
  v_now bigint := ${s}noroshi_now();
  v_until bigint := v_now + (p->>3)::bigint + (p->>4)::bigint;
  v_cut bigint := v_now - (p->>3)::bigint;
  v_after bigint := (p->>6)::bigint;
  v_most bigint := (p->>7)::bigint;
  v_confirmed boolean := (p->>11)::boolean;
  v_count bigint;
  v_end bigint;
  v_first bigint;
  v_whole boolean;
  v_entries json;
begin
  -- Renews the history, but not at each read, because that is a write, nor while another transaction appends, which renews it too.
  if c.expires < v_until - (p->>4)::bigint / 3 or (c.size, c.ttl) is distinct from ((p->>2)::bigint, (p->>3)::bigint) then
    update ${s}noroshi_channels set size = (p->>2)::bigint, ttl = (p->>3)::bigint, expires = greatest(expires, v_until)
      where id = (select id from ${s}noroshi_channels where id = c.id for update skip locked);
  end if;
  if p->>5 is null then
    select json_agg(json_build_array(e.pos, e.previous, e.at, e.envelope) order by e.pos) into v_entries from (
      select q.* from ${s}noroshi_publications q join ${s}noroshi_channels k on k.id = q.channel and k.epoch = c.epoch
        where q.channel = c.id and q.pos <= c.pos and q.at > v_cut order by q.pos desc limit v_most
    ) e;
    return json_build_array(c.epoch, c.pos, true, coalesce(v_entries, '[]'), false);
  end if;
  if p->>5 <> c.epoch or v_after > c.pos then return json_build_array(c.epoch, c.pos, false, '[]'::json, false); end if;
  -- In one statement, as publications may be removed between two.
  select count(*), max(e.pos), min(e.previous), coalesce(bool_and(e.previous = e.before), true),
      json_agg(json_build_array(e.pos, e.previous, e.at, e.envelope) order by e.pos)
        filter (where e.number = 1 or e.bytes <= (p->>8)::bigint)
    into v_count, v_end, v_first, v_whole, v_entries from (
      select q.pos, q.previous, q.at, q.envelope, lag(q.pos, 1, v_after) over w as before,
          row_number() over w as number, sum(length(q.envelope) + 200) over w as bytes
        from ${s}noroshi_publications q join ${s}noroshi_channels k on k.id = q.channel and k.epoch = c.epoch
        where q.channel = c.id and q.pos > v_after and q.pos <= c.pos and q.at > v_cut
        window w as (order by q.pos)
    ) e;
  -- The first publication follows an earlier position than the node's, which has existed: the history was set back and continued.
  if v_confirmed and v_first < v_after then
    perform 1 from ${s}noroshi_channels where id = c.id for update;
    c := ${s}noroshi_begin(c.id, c.run, (p->>3)::bigint + (p->>4)::bigint);
    return json_build_array(c.epoch, c.pos, false, '[]'::json, false);
  end if;
  if not v_whole or coalesce(v_end, v_after) <> c.pos or (not v_confirmed and v_count > v_most) then
    return json_build_array(c.epoch, c.pos, false, '[]'::json, false);
  end if;
  return json_build_array(
    c.epoch, c.pos, true, coalesce(v_entries, '[]'), coalesce(json_array_length(v_entries), 0) < v_count
  );
end $$;

-- The rows that notifications have named: publications by channel, epoch and position, and mail by id.
create or replace function ${s}noroshi_fetch(p_namespace text, p json) returns json language sql volatile as $$
  select json_build_array(
    (
      select coalesce(json_agg(json_build_array(c.name, c.epoch, q.pos, q.previous, q.envelope)), '[]')
        from json_array_elements(p->1) w
        join ${s}noroshi_channels c on c.namespace = p_namespace and c.name = w->>0 and c.epoch = w->>1
        join ${s}noroshi_publications q on q.channel = c.id and q.pos = (w->>2)::bigint
    ),
    (
      select coalesce(json_agg(json_build_array(m.id, m.envelope)), '[]')
        from ${s}noroshi_mail m where m.id in (select value::bigint from json_array_elements_text(p->2))
    )
  )
$$;

-- Renews histories, and returns their latest positions; null for one that is missing or has lost publications.
create or replace function ${s}noroshi_tops(p_namespace text, p json) returns json language plpgsql as $$
declare
  v_now bigint := ${s}noroshi_now();
  v_run text := ${s}noroshi_run();
begin
  update ${s}noroshi_channels set expires = greatest(expires, v_now + renewed.ttl) from (
    select c.id, (w->>1)::bigint as ttl from json_array_elements(p->1) w
      join ${s}noroshi_channels c on c.namespace = p_namespace and c.name = w->>0
      where c.expires < v_now + (w->>1)::bigint - (w->>2)::bigint / 3 and c.expires > v_now
      for update of c skip locked
  ) renewed where noroshi_channels.id = renewed.id;
  return (
    select json_agg(
      case when c.run = v_run and c.expires > v_now and (w.call->>3 is distinct from c.epoch or c.pos >= (w.call->>4)::bigint)
        then json_build_array(c.epoch, c.pos) end order by w.number
    ) from json_array_elements(p->1) with ordinality as w (call, number)
      left join ${s}noroshi_channels c on c.namespace = p_namespace and c.name = w.call->>0
  );
end $$;

-- Renews the lease of a node, and removes nodes whose lease is over.
create or replace function ${s}noroshi_beat(p_namespace text, p_node text, p_lease bigint, p_beat bigint)
returns json language plpgsql as $$
declare
  v_now bigint := ${s}noroshi_now();
  v_known boolean;
  v_dead text[];
  v_lsn text;
begin
  select expires > v_now into v_known from ${s}noroshi_nodes where namespace = p_namespace and node = p_node;
  insert into ${s}noroshi_nodes values (p_namespace, p_node, v_now + p_lease)
    on conflict (namespace, node) do update set expires = excluded.expires;
  with dead as (
    delete from ${s}noroshi_nodes where (namespace, node) in (
      select namespace, node from ${s}noroshi_nodes
        where namespace = p_namespace and expires <= v_now for update skip locked
    ) returning node
  ) select array_agg(node) into v_dead from dead;
  if v_dead is not null then delete from ${s}noroshi_members where namespace = p_namespace and node = any(v_dead); end if;
  perform pg_notify(${s}noroshi_subject(p_namespace), 'h ' || p_beat || ' ' || p_node);
  begin
    v_lsn := pg_current_wal_flush_lsn();
  exception when others then
    null; -- As in noroshi_run.
  end;
  return json_build_array(coalesce(v_known, false), v_now, ${s}noroshi_run(), v_lsn);
end $$;

-- Removes expired rows of these kinds, a limited number of each. Returns the kinds that may have more.
create or replace function ${s}noroshi_sweep(p_parts text[]) returns json language plpgsql as $$
declare
  v_now bigint := ${s}noroshi_now();
  v_more text[] := '{}';
  v_part text;
  v_most bigint;
  v_count bigint;
begin
  foreach v_part in array p_parts loop
    v_most := 5000;
    case v_part
      when 'mail' then
        delete from ${s}noroshi_mail where id in (
          select id from ${s}noroshi_mail where at < v_now - 60000 order by id limit v_most for update skip locked
        );
        get diagnostics v_count = row_count;
      when 'orders' then
        delete from ${s}noroshi_orders where id in (
          select id from ${s}noroshi_orders where at < v_now - 86400000 order by id limit v_most for update skip locked
        );
        get diagnostics v_count = row_count;
      when 'ids' then
        delete from ${s}noroshi_ids where key in (
          select key from ${s}noroshi_ids where expires < v_now order by expires limit v_most for update skip locked
        );
        get diagnostics v_count = row_count;
      when 'answers' then
        delete from ${s}noroshi_answers where key in (
          select key from ${s}noroshi_answers where expires < v_now order by expires limit v_most for update skip locked
        );
        get diagnostics v_count = row_count;
      when 'members' then
        -- Members without a node: it joined after its lease was over, and ended before the next. By ctid, because a member that joins again
        -- meanwhile has a new one and stays.
        delete from ${s}noroshi_members where ctid = any(array(
          select m.ctid from ${s}noroshi_members m where not exists (
            select from ${s}noroshi_nodes l where l.namespace = m.namespace and l.node = m.node
          ) limit v_most
        ));
        get diagnostics v_count = row_count;
      when 'channels' then
        v_most := 1000;
        -- A week after they have expired: until then \`noroshi_publish\` finds the settings of the history here.
        with ended as (
          delete from ${s}noroshi_channels where id in (
            select id from ${s}noroshi_channels where expires < v_now - 604800000 limit v_most for update skip locked
          ) returning id
        ), gone as (delete from ${s}noroshi_publications where channel in (select id from ended))
        select count(*) into v_count from ended;
      when 'histories' then
        v_most := 1000;
        with expired as (
          update ${s}noroshi_channels set n = 0, gone = 0 where id in (
            select id from ${s}noroshi_channels where expires < v_now and n > 0 limit v_most for update skip locked
          ) returning id
        ), gone as (delete from ${s}noroshi_publications where channel in (select id from expired))
        select count(*) into v_count from expired;
      when 'publications' then
        -- Of channels without new publications: those of others are removed by each publication.
        v_most := 50;
        with quiet as (
          select c.id, c.n - c.size as surplus from ${s}noroshi_channels c cross join lateral (
            select q.n, q.at from ${s}noroshi_publications q where q.channel = c.id order by q.pos limit 1
          ) oldest where c.n - c.size > c.gone and oldest.n <= c.n - c.size and oldest.at < v_now - 10000
            limit 500 for update of c skip locked
        ), removed as (
          delete from ${s}noroshi_publications where (channel, pos) in (
            select each.channel, each.pos from quiet cross join lateral (
              select q.channel, q.pos, q.n, q.at from ${s}noroshi_publications q where q.channel = quiet.id order by q.pos limit 100
            ) each where each.n <= quiet.surplus and each.at < v_now - 10000 limit 5000
          ) returning channel, n
        ), noted as (
          update ${s}noroshi_channels set gone = last.n
            from (select channel, max(n) as n from removed group by channel) last where id = last.channel
        ) select count(*) into v_count from removed;
      else
        v_count := 0; -- A kind of a later version.
    end case;
    if v_count >= v_most then v_more := array_append(v_more, v_part); end if;
  end loop;
  return to_json(v_more);
end $$;

-- Starts a session. If the database is behind what the node has seen of it, it was restored: a new token ends all histories.
create or replace function ${s}noroshi_start(p_namespace text, p_run text, p_lsn text) returns json language plpgsql as $$
begin
  if p_lsn is not null and p_run = ${s}noroshi_run() and pg_current_wal_flush_lsn() < p_lsn::pg_lsn then
    update ${s}noroshi_state set token = gen_random_uuid()::text;
  end if;
  return to_json(${s}noroshi_now());
end $$;

-- Stores an answer unless one is stored. Returns the stored one, or null.
create or replace function ${s}noroshi_claim(p_key bytea, p_answer text, p_ttl bigint) returns json language plpgsql as $$
declare
  v_now bigint := ${s}noroshi_now();
  v_answer text;
begin
  insert into ${s}noroshi_answers as a values (p_key, p_answer, v_now + p_ttl)
    on conflict (key) do update set answer = excluded.answer, expires = excluded.expires where a.expires <= v_now;
  if found then return null; end if;
  select answer into v_answer from ${s}noroshi_answers where key = p_key;
  return to_json(v_answer);
end $$;

-- Makes the calls of a node in order, in one transaction. Each is [name, ...arguments].
create or replace function ${s}noroshi_call(p_namespace text, p_calls text) returns text language plpgsql as $$
declare
  v_calls json := p_calls::json;
  v_answers json[] := '{}';
  v_answer json;
  v_gate integer;
  v_begins boolean;
  p json;
begin
  -- Against deadlocks, all transactions lock gates first, then channels and keys, each in one order. A single call locks only one, except
  -- for an event, which locks its gate first.
  if json_array_length(v_calls) > 1 or v_calls->0->>0 = 'event' then
    for v_gate, v_begins in
      select ${s}noroshi_gate(p_namespace, each.name), bool_or(each.begins) from (
        select call.name, bool_or(call.kind = 'event') as publishes, bool_or(call.kind in ('append', 'read')) and (
          bool_or(call.kind in ('event', 'end'))
            or not exists (select from ${s}noroshi_channels c where c.namespace = p_namespace and c.name = call.name)
        ) as begins from (
          select value->>0 as kind, value->>1 as name from json_array_elements(v_calls)
            where value->>0 in ('append', 'event', 'read', 'end')
        ) call group by call.name
      ) each where each.publishes or each.begins group by 1 order by 1
    loop
      perform ${s}noroshi_enter(v_gate, v_begins);
    end loop;
    for p in
      select value from json_array_elements(v_calls) where value->>0 in ('append', 'event', 'read', 'end', 'claim', 'settle')
        order by (value->>1) collate "C"
    loop
      if p->>0 = 'append' then
        perform ${s}noroshi_channel(p_namespace, p->>1, (p->>3)::bigint, (p->>4)::bigint, p->>6, (p->>7)::bigint, true);
      elsif p->>0 = 'read' then
        perform ${s}noroshi_channel(p_namespace, p->>1, (p->>2)::bigint, (p->>3)::bigint, p->>9, (p->>10)::bigint, false);
      elsif p->>0 in ('claim', 'settle') then
        perform ${s}noroshi_lock(p->>1);
      else
        if p->>3 is not null and p->>0 = 'event' then perform ${s}noroshi_lock(p->>1); end if;
        perform 1 from ${s}noroshi_channels where namespace = p_namespace and name = p->>1 for update;
      end if;
    end loop;
  end if;
  for p in select value from json_array_elements(v_calls) with ordinality as call (value, number) order by number loop
    v_answer := null;
    case p->>0
      when 'append' then
        v_answer := ${s}noroshi_append(
          p_namespace, p->>1, p->>2, (p->>3)::bigint, (p->>4)::bigint, (p->>5)::bigint, p->>6, (p->>7)::bigint, p->>8, (p->>9)::bigint
        );
      when 'event' then v_answer := ${s}noroshi_event(p_namespace, p->>1, p->>2, p->>3, (p->>4)::bigint);
      when 'fetch' then v_answer := ${s}noroshi_fetch(p_namespace, p);
      when 'read' then v_answer := ${s}noroshi_read(p_namespace, p);
      when 'tops' then v_answer := ${s}noroshi_tops(p_namespace, p);
      when 'end' then v_answer := ${s}noroshi_end(p_namespace, p->>1, p->>2);
      when 'send' then v_answer := ${s}noroshi_mail(p_namespace, 'all', '', p->>1);
      when 'keep' then
        insert into ${s}noroshi_orders (namespace, at, envelope) values (p_namespace, ${s}noroshi_now(), p->>1);
        v_answer := ${s}noroshi_mail(p_namespace, 'all', '', p->>1);
      when 'kept' then
        select json_agg(o.envelope order by o.id) into v_answer from (
          select id, envelope from ${s}noroshi_orders
            where namespace = p_namespace and at >= (p->>1)::bigint order by id desc limit 10000
        ) o;
      when 'beat' then
        v_answer := ${s}noroshi_beat(p_namespace, p->>1, (p->>2)::bigint, (p->>3)::bigint);
      when 'sweep' then v_answer := ${s}noroshi_sweep(array(select json_array_elements_text(p->1)));
      when 'nodes' then
        select json_agg(node) into v_answer from ${s}noroshi_nodes
          where namespace = p_namespace and expires > ${s}noroshi_now();
      when 'join' then
        insert into ${s}noroshi_members
          values (${s}noroshi_key(p_namespace, p->>1, p->>2, p->>3), p_namespace, p->>1, p->>2, p->>4)
          on conflict (key) do update set envelope = excluded.envelope;
        v_answer := ${s}noroshi_mail(p_namespace, 'member', p->>1, p->>4);
      when 'leave' then
        delete from ${s}noroshi_members where key = ${s}noroshi_key(p_namespace, p->>1, p->>2, p->>3);
        v_answer := ${s}noroshi_mail(p_namespace, 'member', p->>1, p->>4);
      when 'members' then
        select json_agg(m.envelope) into v_answer from ${s}noroshi_members m
          join ${s}noroshi_nodes l on l.namespace = m.namespace and l.node = m.node and l.expires > ${s}noroshi_now()
          where m.namespace = p_namespace and m.channel = p->>1;
      when 'own' then
        select json_agg(json_build_array(channel, envelope)) into v_answer from ${s}noroshi_members
          where namespace = p_namespace and node = p->>1;
      when 'retire' then
        delete from ${s}noroshi_members where namespace = p_namespace and node = p->>1;
        delete from ${s}noroshi_nodes where namespace = p_namespace and node = p->>1;
      when 'claim' then
        v_answer := ${s}noroshi_claim(${s}noroshi_key(p_namespace, p->>1), p->>2, (p->>3)::bigint);
      when 'settle' then
        insert into ${s}noroshi_answers
          values (${s}noroshi_key(p_namespace, p->>1), p->>2, ${s}noroshi_now() + (p->>3)::bigint)
          on conflict (key) do update set answer = excluded.answer, expires = excluded.expires;
      when 'start' then v_answer := ${s}noroshi_start(p_namespace, p->>1, p->>2);
    end case;
    v_answers := array_append(v_answers, v_answer);
  end loop;
  return array_to_json(v_answers)::text;
end $$;
`;
