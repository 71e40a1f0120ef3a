/** Types of the declarations that `new Channels` takes, and of the channel names that they allow. */
import type { ChannelContract, ChannelName, ChannelOf, Contract, MatchingName } from "../protocol/contract-types.ts";
import type { ChannelOptions, EventSchemas } from "./channel-options.ts";

/** Channel options, by channel name or by a prefix followed by `*`: of the channels of the contract, or of any. */
export type ChannelDeclarations<C = Contract, Schemas = AnySchemas> = C extends { readonly channels: infer H }
  ? { readonly [Name in keyof H & string]: ChannelOptions<Name, H[Name]> }
  : { readonly [Name in keyof Schemas]: ChannelOptions<Name & string, ChannelContract, Schemas[Name]> };

/** @internal Rejects channels and events that the contract lacks, also in declarations that come from a variable. */
export type OnlyDeclared<C, Schemas> = string extends keyof Schemas ? unknown
  : C extends { readonly channels: infer H } ? { readonly [Name in keyof Schemas]: OnlyIn<H, Name, Schemas[Name]> }
  : unknown;

/** @internal */
type OnlyIn<H, Name, Schemas> = Name extends keyof H
  ? unknown extends Schemas ? unknown : { readonly schema?: OnlyEvents<H[Name], Schemas> }
  : `Cannot declare the channel "${Name & string}": the contract does not have it`;

/** @internal */
type OnlyEvents<H, Schemas> = {
  readonly [Event in keyof Schemas]: H extends { readonly events: infer Events }
    ? Event extends keyof Events ? unknown : `Cannot declare the event "${Event & string}": the contract does not have it`
    : unknown;
};

/** Schemas of channels that are not known at compile time. */
export type AnySchemas = { readonly [name: string]: EventSchemas };

/** The contract of the controller; without one, a contract made of the schemas of the declarations. */
export type ChannelsOf<C, Schemas> = C extends { readonly channels: unknown } ? C : {
  readonly channels: {
    readonly [Name in keyof Schemas]: Schemas[Name] extends EventSchemas ? { readonly events: Schemas[Name] } : ChannelContract;
  };
};

/** A declared channel name. A `string`, which is not known at compile time, is checked at run time only. */
export type DeclaredName<D, Name extends string> = string extends Name ? Name
  : [Name] extends [ChannelName<D>] ? MatchingName<D, Name>
  : ChannelName<D>;

/** The declaration that a channel name matches; any declaration if the name is not known at compile time. */
export type DeclarationOf<D, Name extends string> = string extends Name ? ChannelContract : ChannelOf<D, Name>;
