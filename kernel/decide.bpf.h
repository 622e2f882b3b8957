/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The verdict. Every hook and the judge program come through aegis_decide(): the
 * differential test runs the very code that enforces.
 */
#ifndef AEGIS_DECIDE_BPF_H
#define AEGIS_DECIDE_BPF_H

#include "classify.bpf.h"

/*
 * Outbound, *addr* and *port* are the destination. Inbound, they are the peer's
 * address and our own port: what lists are about. The rest is for the report:
 * outbound our own end, inbound our own address and the peer's port.
 */
struct flow {
	__u32 addr[4];			/* network order; IPv4 as ::ffff:a.b.c.d */
	__u32 rest_addr[4];
	__u16 port;			/* host order; for AEGIS_HOOK_SOCKET an enum aegis_socket bit */
	__u16 rest_port;
	__u16 protocol;			/* IANA */
	__u8 direction;			/* enum aegis_direction */
	__u8 hook;			/* enum aegis_hook */
};

struct decision {
	__u64 rule_id;			/* of the app that decided; 0: unconfigured */
	__u32 detent_s;
	__u16 app;
	__u8 verdict;
	__u8 reason;
	__u8 actions;			/* 0: on the map */
	__u8 report;
	__u8 scope;			/* enum aegis_scope */
	__u8 pad[5];
};

/* What a verdict depends on of an enum aegis_identity: nothing else reaches weigh(). */
#define DECIDING (AEGIS_ID_TRUSTED | AEGIS_ID_ARGV0_FALSE)

/* Loopback, and the unspecified address, which the kernel sends to loopback. */
static __always_inline enum aegis_scope scope_of(const __u32 addr[4])
{
	if (addr[0] || addr[1])
		return AEGIS_SCOPE_REMOTE;
	if (addr[2] == bpf_htonl(0xffff))
		return !addr[3] || (addr[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ?
		       AEGIS_SCOPE_LOCAL : AEGIS_SCOPE_REMOTE;
	return !addr[2] && (!addr[3] || addr[3] == bpf_htonl(1)) ?
	       AEGIS_SCOPE_LOCAL : AEGIS_SCOPE_REMOTE;
}

static __always_inline bool port_listed(__u32 ports, __u16 port, __u32 slot)
{
	__u16 low = ports, high = ports >> 16;
	struct aegis_port_page *page;
	struct aegis_port_dir *dir;
	__u32 index;

	if (low)
		return low <= port && port <= high;
	if (!high)
		return false;
	index = slot * AEGIS_DIRS_MAX + high;
	dir = bpf_map_lookup_elem(&port_dirs, &index);
	if (!dir)
		return false;
	index = slot * AEGIS_PAGES_MAX +
		dir->page[(port / AEGIS_PAGE_PORTS) & (AEGIS_DIR_PAGES - 1)];
	page = bpf_map_lookup_elem(&port_pages, &index);
	if (!page)
		return false;
	return page->word[(port / 64) & (AEGIS_PAGE_WORDS - 1)] >> (port & 63) & 1;
}

/* Whether *app* lists this address and port: the longest prefix alone decides. */
__noinline int aegis_lists(struct aegis_app *app, __u32 number, struct flow *flow, __u32 scope,
			   __u32 generation)
{
	struct aegis_net_key key = {
		.prefixlen = 8 * sizeof(key.host),
		.host = { .generation = generation, .app = number, .scope = scope },
	};
	struct aegis_ports *ports = NULL;

	if (!app || !flow)
		return false;
	scope &= AEGIS_SCOPE_LISTS - 1;

	__builtin_memcpy(key.host.addr, flow->addr, sizeof(key.host.addr));
	if (app->flags & AEGIS_APP_HOSTS << scope)
		ports = bpf_map_lookup_elem(&hosts, &key.host);
	if (!ports && app->flags & AEGIS_APP_NETS << scope)
		ports = bpf_map_lookup_elem(&nets, &key);
	if (!ports)
		ports = &app->base[scope];
	return port_listed(flow->protocol == AEGIS_PROTOCOL_TCP ? ports->tcp : ports->udp,
			   flow->port, generation & 1);
}

static __always_inline struct aegis_app *app_row(__u32 generation, __u32 number)
{
	__u32 index = (generation & 1) * AEGIS_APPS_MAX + number;

	return bpf_map_lookup_elem(&apps, &index);
}

/* On the map, or why not. *untrusted*: the rule may not grant to this file. */
static __always_inline enum aegis_reason
weigh(struct decision *d, struct aegis_app *app, struct aegis_app *whitelist,
      struct flow *flow, __u32 generation, bool untrusted)
{
	bool listed;

	/* An ignored program may go anywhere: as good as a list of everything. */
	listed = d->app && (app->flags & AEGIS_APP_IGNORE ||
			    aegis_lists(app, d->app, flow, d->scope, generation));
	if (listed && !untrusted)
		return AEGIS_REASON_RULE_ALLOWS;
	/* A rule's permission voided for this file leaves an unconfigured program. */
	if ((listed || !(app->flags & AEGIS_APP_STRICT)) &&
	    aegis_lists(whitelist, 0, flow, d->scope, generation))
		return AEGIS_REASON_WHITELIST;
	if (listed)
		return AEGIS_REASON_UNTRUSTED;
	return d->app ? AEGIS_REASON_RULE_DENIES : AEGIS_REASON_UNCONFIGURED;
}

/* Our own port first, then who comes, once somebody did. */
static __always_inline enum aegis_reason
weigh_inbound(struct decision *d, struct aegis_app *app, struct aegis_app *whitelist,
	      struct flow *flow, __u32 generation, bool untrusted)
{
	bool came = flow->hook >= AEGIS_HOOK_INGRESS;

	if (d->app && !(app->flags & AEGIS_APP_IGNORE)) {
		if (!aegis_lists(app, d->app, flow, AEGIS_SCOPE_LISTEN, generation))
			return AEGIS_REASON_RULE_DENIES;
		if (came && !aegis_lists(app, d->app, flow, AEGIS_SCOPE_PEER, generation)) {
			d->scope = AEGIS_SCOPE_PEER;
			return AEGIS_REASON_RULE_DENIES;
		}
		if (!untrusted)
			return AEGIS_REASON_RULE_ALLOWS;
	}
	/* The whitelist's own row lists every port once inbound is not watched. */
	if (aegis_lists(whitelist, 0, flow, AEGIS_SCOPE_LISTEN, generation))
		return AEGIS_REASON_HARMLESS;
	return d->app ? AEGIS_REASON_UNTRUSTED : AEGIS_REASON_UNCONFIGURED;
}

/* To make a socket is no connection: an unconfigured program is at most refused it. */
static __always_inline enum aegis_reason
weigh_socket(struct decision *d, struct aegis_app *app, struct aegis_config *config,
	     const struct flow *flow, bool untrusted)
{
	bool listed = d->app && (app->flags & AEGIS_APP_IGNORE || app->sockets & flow->port);

	if (listed && !untrusted)
		return AEGIS_REASON_RULE_ALLOWS;
	if (d->app && !listed)
		return AEGIS_REASON_RULE_DENIES;
	if (!(config->unconfigured_actions & (AEGIS_ACTION_BLOCK | AEGIS_ACTION_KILL)))
		return AEGIS_REASON_HARMLESS;
	return d->app ? AEGIS_REASON_UNTRUSTED : AEGIS_REASON_UNCONFIGURED;
}

static __always_inline __u8
actions_for(enum aegis_reason reason, struct aegis_app *app, struct aegis_config *config)
{
	switch (reason) {
	case AEGIS_REASON_RULE_DENIES:
		return app->actions;
	case AEGIS_REASON_UNCONFIGURED:
	case AEGIS_REASON_UNTRUSTED:
		return config->unconfigured_actions;
	default:
		return 0;
	}
}

static __always_inline enum aegis_verdict verdict_for(__u8 actions, __u32 mode)
{
	if (!(actions & (AEGIS_ACTION_BLOCK | AEGIS_ACTION_KILL)))
		return AEGIS_VERDICT_ALLOWED;
	return mode == AEGIS_MODE_ENFORCE ? AEGIS_VERDICT_BLOCKED : AEGIS_VERDICT_WOULD_BLOCK;
}

/* getaddrinfo() connects UDP sockets to port 0; an ICMP echo is no flow. */
static __always_inline bool harmless(const struct flow *flow)
{
	if (flow->hook > AEGIS_HOOK_SENDMSG)
		return false;
	if (flow->protocol == AEGIS_PROTOCOL_ICMP || flow->protocol == AEGIS_PROTOCOL_ICMPV6)
		return true;
	return flow->protocol != AEGIS_PROTOCOL_TCP && !flow->port &&
	       flow->hook == AEGIS_HOOK_CONNECT;
}

static __always_inline enum aegis_scope default_scope(const struct flow *flow)
{
	if (flow->hook == AEGIS_HOOK_SOCKET)
		return AEGIS_SCOPE_SOCKET;
	return flow->direction == AEGIS_DIRECTION_IN ? AEGIS_SCOPE_LISTEN : scope_of(flow->addr);
}

/*
 * *class_*: the process's, of this generation. *identity*: enum aegis_identity
 * bits. Returns false only for a lookup that cannot fail (an array index in
 * range), to please the verifier; the caller denies. A global function: verified
 * once, and not for each of the hooks.
 */
__noinline int
aegis_decide(struct decision *d, struct aegis_config *config, __u64 class_, __u32 identity,
	     struct flow *flow)
{
	struct aegis_app *whitelist, *app;
	__u32 generation;
	bool untrusted;

	if (!d || !config || !flow)
		return false;
	identity &= DECIDING;
	generation = config->generation;
	whitelist = app_row(generation, 0);
	app = app_row(generation, (__u16)class_);
	if (!app || !whitelist)
		return false;
	d->app = class_;
	/* Who runs an interpreter could call it by the name of any wrapper. */
	untrusted = (app->flags & AEGIS_APP_NEEDS_TRUST && !(identity & AEGIS_ID_TRUSTED)) ||
		    (app->flags & AEGIS_APP_NEEDS_ARGV0 && identity & AEGIS_ID_ARGV0_FALSE);
	d->scope = default_scope(flow);
	if (harmless(flow))
		d->reason = AEGIS_REASON_HARMLESS;
	else if (CLASS_FLAG(class_, AEGIS_CLASS_WHITELISTED) && !(app->flags & AEGIS_APP_STRICT))
		d->reason = AEGIS_REASON_PROGRAM;
	else if ((app->flags & AEGIS_APP_IGNORE) && !untrusted)
		d->reason = AEGIS_REASON_PROGRAM;
	else if (flow->hook == AEGIS_HOOK_SOCKET)
		d->reason = weigh_socket(d, app, config, flow, untrusted);
	else if (flow->direction == AEGIS_DIRECTION_IN)
		d->reason = weigh_inbound(d, app, whitelist, flow, generation, untrusted);
	else
		d->reason = weigh(d, app, whitelist, flow, generation, untrusted);
	d->rule_id = app->rule_id;
	d->detent_s = d->reason == AEGIS_REASON_RULE_DENIES ? app->detent_s : whitelist->detent_s;
	d->actions = actions_for(d->reason, app, config);
	d->verdict = verdict_for(d->actions, config->mode);
	d->report = !!(d->actions & ~AEGIS_ACTION_ALLOW);
	return true;
}

#endif
