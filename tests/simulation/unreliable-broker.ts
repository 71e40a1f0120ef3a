import { type Broker, type BrokerListener, type BrokerSession, chain } from "../../src/engines/broker/broker.ts";
import type { Awaitable } from "../../src/engines/engine.ts";
import { MemoryBroker } from "../../src/testing/memory-broker.ts";
import type { Dice } from "./dice.ts";
import { hash } from "./replacements.ts";
import type { SeededTurns } from "./seeded-turns.ts";

/** How often something goes wrong, as probabilities. */
export interface BrokerFaults {
  /** A publication is lost on its way to a node, arrives twice, or is overtaken by later ones. Each arrival. */
  readonly lost: number;
  readonly doubled: number;
  readonly late: number;
  /** The connection fails before a request has reached the broker, or after it was carried out and before its answer. Each request. */
  readonly refused: number;
  readonly unanswered: number;
  /** No node can read a publication in the history. Each publication. */
  readonly unreadable: number;
}

export const NO_FAULTS: BrokerFaults = { lost: 0, doubled: 0, late: 0, refused: 0, unanswered: 0, unreadable: 0 };

/** Offsets grow by random steps, as in Redis: an offset that was lost does not come again. */
const STEPS = 1_000_000;

/** Turns by which a late publication or announcement is overtaken. */
const LATE = 6;

/** One connection of a node. */
interface Connection {
  fail(error: Error): void;
}

/** The broker in memory, whose connections fail within what the contract of {@link BrokerSession} allows. */
export class UnreliableBroker {
  readonly memory: MemoryBroker;
  faults: BrokerFaults = NO_FAULTS;
  readonly #dice: Dice;
  readonly #turns: SeededTurns;
  readonly #connections = new Map<number, Set<Connection>>();
  readonly #secret: string | undefined;
  /** The nodes that are of the next version. */
  readonly #upgraded = new Set<number>();

  /** @param secret of the nodes, if they sign. */
  constructor(turns: SeededTurns, now: () => number, dice: Dice, secret: string | undefined) {
    this.#dice = dice;
    this.#secret = secret;
    this.#turns = turns;
    this.memory = new MemoryBroker(turns, now, () => 1 + dice.below(STEPS - 1));
  }

  of(node: number): Broker {
    const broker = this.memory.of(node);
    return {
      ...broker,
      name: "The simulated broker",
      connect: async (listener, options, abandoned) => {
        if (this.#dice.chance(this.faults.refused)) throw new Error("The connection was refused");
        let isOver = false;
        // deno-lint-ignore prefer-const -- `fail` may be called before it is assigned.
        let session: BrokerSession | undefined;
        const connections = this.#of(node);
        const connection: Connection = {
          fail(error) {
            if (isOver) return;
            isOver = true;
            connections.delete(connection);
            session?.close();
            listener.ended(error);
          },
        };
        connections.add(connection);
        session = this.#wrap(
          await broker.connect(this.#lossy(listener, () => isOver), options, abandoned),
          connection,
          node,
          () => {
            isOver = true;
            connections.delete(connection);
          },
        );
        if (isOver) session.close();
        return session;
      },
    };
  }

  /** All connections fail: the broker restarts. */
  restart(): void {
    for (const connections of this.#connections.values()) {
      for (const connection of [...connections]) connection.fail(new Error("The broker has ended"));
    }
  }

  /** From now on the node is of the next version, which writes more than this one reads, or of this one again. */
  upgrade(node: number, isNext: boolean): void {
    if (isNext) this.#upgraded.add(node);
    else this.#upgraded.delete(node);
  }

  /** The process of the node has ended. */
  kill(node: number): void {
    this.#of(node).clear();
    this.memory.kill(node);
  }

  #of(node: number): Set<Connection> {
    let connections = this.#connections.get(node);
    if (!connections) this.#connections.set(node, connections = new Set());
    return connections;
  }

  #lossy(listener: BrokerListener, isOver: () => boolean): BrokerListener {
    const waiting = new Map<string, string[]>();
    return {
      ...listener,
      // Announcements of one channel arrive in order. Those of others may overtake them.
      member: (channel, envelope) => {
        const earlier = waiting.get(channel);
        if (earlier) return void earlier.push(envelope);
        if (!this.#dice.chance(this.faults.late)) return listener.member(channel, envelope);
        const held = [envelope];
        waiting.set(channel, held);
        this.#turns.postpone(() => {
          waiting.delete(channel);
          for (const each of held) if (!isOver()) listener.member(channel, each);
        }, 1 + this.#dice.below(LATE));
      },
      live: (channel, envelope, position, previous) => {
        const { lost, doubled, late } = this.faults;
        const deliver = () => isOver() || listener.live(channel, envelope, position, previous);
        // Without a history a loss is not noticed, which is what such a channel promises.
        if (position && this.#dice.chance(lost)) return;
        if (position && this.#dice.chance(late)) this.#turns.postpone(deliver, 1 + this.#dice.below(LATE));
        else deliver();
        if (position && this.#dice.chance(doubled)) this.#turns.postpone(deliver, 1 + this.#dice.below(LATE));
      },
    };
  }

  /** A session whose requests may end the connection. */
  #wrap(session: BrokerSession, connection: Connection, node: number, closed: () => void): BrokerSession {
    const written = (scope: string, envelope: string) => this.#upgraded.has(node) ? this.#next(scope, envelope) : envelope;
    const ask = <Arguments extends unknown[], Answer>(call: (...args: Arguments) => Promise<Answer>) => {
      return async (...args: Arguments): Promise<Answer> => {
        const { refused, unanswered } = this.faults;
        const lose = (): Promise<never> => {
          const error = new Error("The connection was reset");
          connection.fail(error);
          return Promise.reject(error);
        };
        if (this.#dice.chance(refused)) return await lose();
        const isUnanswered = this.#dice.chance(unanswered);
        const answer = await call.apply(session, args);
        return isUnanswered ? await lose() : answer;
      };
    };
    return {
      fullNamespace: session.fullNamespace,
      answers: {
        claim: ask((...args) => session.answers.claim(...args)),
        settle: ask((...args) => session.answers.settle(...args)),
      },
      now: () => session.now(),
      listen: ask(session.listen),
      unlisten: ask(session.unlisten),
      publish: ask((channel, seal, history, ...others) => {
        const isUnreadable = history !== null && this.#dice.chance(this.faults.unreadable);
        const sealed = (): Awaitable<string> =>
          chain(seal(), (envelope) => isUnreadable ? envelope.replace('"kind"', '"none"') : written(channel, envelope));
        return session.publish(channel, sealed, history, ...others);
      }),
      read: ask(session.read),
      endHistory: ask(session.endHistory),
      latestPositions: ask(session.latestPositions),
      send: ask((envelope) => session.send(written("", envelope))),
      storeOrder: ask((envelope, number) => session.storeOrder(written("", envelope), number)),
      storedOrders: ask(session.storedOrders),
      heartbeat: ask(session.heartbeat),
      nodes: ask(session.nodes),
      join: ask((channel, user, envelope) => session.join(channel, user, written(channel, envelope))),
      leave: ask((channel, user, envelope, isLast) => session.leave(channel, user, written(channel, envelope), isLast)),
      members: ask(session.members),
      ownMembers: ask(session.ownMembers),
      retire: ask(session.retire),
      close() {
        closed();
        session.close();
      },
    };
  }

  /** The envelope as the next version writes it: this one can read it, and does not know all of its header. */
  #next(scope: string, envelope: string): string {
    const text = envelope.slice(envelope.indexOf("\n") + 1).replace('{"v":2,', '{"v":3,"min":2,"new":{},');
    const signature = this.#secret === undefined ? "" : hash(`${scope}\n${text}`, this.#secret);
    return `${signature}\n${text}`;
  }
}
