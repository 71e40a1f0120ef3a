/** The tables of the engine. Times are in ms since 1970, by the clock of the database. @param s the quoted schema and a dot. */
export const tables = (s: string): string => `
-- The token of noroshi_run, which changes when data was lost.
create table if not exists ${s}noroshi_state (
  id integer primary key check (id = 1),
  token text not null
);

-- The history of each channel, and its end. A publication locks the row. Publications are numbered from 1 to n, and those up to gone were
-- removed.
create table if not exists ${s}noroshi_channels (
  id bigint generated always as identity primary key,
  namespace text not null,
  name text not null,
  run text not null,
  epoch text not null,
  pos bigint not null default 0,
  n bigint not null default 0,
  gone bigint not null default 0,
  size bigint not null,
  ttl bigint not null,
  expires bigint not null,
  unique (namespace, name)
);

create table if not exists ${s}noroshi_publications (
  channel bigint not null,
  pos bigint not null,
  previous bigint not null,
  n bigint not null,
  at bigint not null,
  envelope text not null,
  primary key (channel, pos)
);

create table if not exists ${s}noroshi_ids (
  key bytea primary key,
  epoch text not null,
  pos bigint not null,
  expires bigint not null
);
create index if not exists noroshi_ids_expires on ${s}noroshi_ids (expires);

create table if not exists ${s}noroshi_answers (
  key bytea primary key,
  answer text not null,
  expires bigint not null
);
create index if not exists noroshi_answers_expires on ${s}noroshi_answers (expires);

create table if not exists ${s}noroshi_orders (
  id bigint generated always as identity primary key,
  namespace text not null,
  at bigint not null,
  envelope text not null
);

-- A separate, logged sequence: that of an unlogged table cannot be read on a promoted standby.
create sequence if not exists ${s}noroshi_serial;

-- Tables that may be lost in a crash are unlogged: nodes announce themselves and their members again.
create unlogged table if not exists ${s}noroshi_mail (
  id bigint primary key default nextval('${s}noroshi_serial'),
  at bigint not null,
  envelope text not null
);

create unlogged table if not exists ${s}noroshi_nodes (
  namespace text not null,
  node text not null,
  expires bigint not null,
  primary key (namespace, node)
);

create unlogged table if not exists ${s}noroshi_members (
  key bytea primary key,
  namespace text not null,
  channel text not null,
  node text not null,
  envelope text not null
);
create index if not exists noroshi_members_channel on ${s}noroshi_members (namespace, channel);
create index if not exists noroshi_members_node on ${s}noroshi_members (namespace, node);

-- Publications of open transactions, which are removed at the commit, so that a crash loses nothing.
create unlogged table if not exists ${s}noroshi_outbox (
  xact xid8 not null default pg_current_xact_id(),
  id bigint not null default nextval('${s}noroshi_serial'),
  namespace text not null,
  channel text not null,
  event text,
  body text not null,
  size bigint,
  ttl bigint,
  once_id text,
  once_window bigint,
  primary key (xact, id)
);
`;
