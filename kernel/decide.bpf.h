/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The verdict. Every hook and the judge program come through decide(): the
 * differential test runs the very code that enforces.
 */
#ifndef AEGIS_DECIDE_BPF_H
#define AEGIS_DECIDE_BPF_H

#include "classify.bpf.h"

struct flow {
	__u32 addr[4];			/* network order; IPv4 as ::ffff:a.b.c.d */
	__u16 port;			/* host order */
	__u16 protocol;			/* IANA */
	__u8 scope;			/* enum aegis_scope */
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
	__u8 pad[6];
};

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

/* What *app* may reach at this address: the longest prefix alone decides. */
static __always_inline bool
lists(struct aegis_app *app, __u16 number, const struct flow *flow, __u32 generation)
{
	struct aegis_net_key key = {
		.prefixlen = 8 * sizeof(key.host),
		.host = { .generation = generation, .app = number, .scope = flow->scope },
	};
	__u32 scope = flow->scope & (AEGIS_SCOPE_MAX - 1);
	struct aegis_ports *ports = NULL;

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
weigh(struct aegis_app *app, __u16 number, struct aegis_app *whitelist,
      const struct flow *flow, __u32 generation, bool untrusted)
{
	/* An ignored program may go anywhere: as good as a list of everything. */
	bool listed = number && (app->flags & AEGIS_APP_IGNORE ||
				 lists(app, number, flow, generation));

	if (listed && !untrusted)
		return AEGIS_REASON_RULE_ALLOWS;
	/* A rule's permission voided for this file leaves an unconfigured program. */
	if ((listed || !(app->flags & AEGIS_APP_STRICT)) && lists(whitelist, 0, flow, generation))
		return AEGIS_REASON_WHITELIST;
	if (listed)
		return AEGIS_REASON_UNTRUSTED;
	return number ? AEGIS_REASON_RULE_DENIES : AEGIS_REASON_UNCONFIGURED;
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
	if (flow->protocol == 1 || flow->protocol == 58)
		return true;
	return flow->protocol != AEGIS_PROTOCOL_TCP && !flow->port &&
	       flow->hook == AEGIS_HOOK_CONNECT;
}

/*
 * *class_*: the process's, of this generation. *identity*: enum aegis_identity
 * bits. Returns false only for a lookup that cannot fail (an array index in
 * range), to please the verifier; the caller denies. Not inlined: classify() and
 * this must not share the 512 bytes of stack.
 */
static __noinline int
decide(struct decision *d, struct aegis_config *config, __u64 class_, __u32 identity,
       const struct flow *flow)
{
	__u32 generation = config->generation;
	struct aegis_app *whitelist = app_row(generation, 0), *app = app_row(generation, (__u16)class_);
	bool untrusted;

	if (!app || !whitelist)
		return false;
	d->app = class_;
	untrusted = (app->flags & AEGIS_APP_NEEDS_TRUST) && !(identity & AEGIS_ID_TRUSTED);
	if (harmless(flow))
		d->reason = AEGIS_REASON_HARMLESS;
	else if (CLASS_FLAG(class_, AEGIS_CLASS_WHITELISTED) && !(app->flags & AEGIS_APP_STRICT))
		d->reason = AEGIS_REASON_PROGRAM;
	else if ((app->flags & AEGIS_APP_IGNORE) && !untrusted)
		d->reason = AEGIS_REASON_PROGRAM;
	else
		d->reason = weigh(app, d->app, whitelist, flow, generation, untrusted);
	d->rule_id = app->rule_id;
	d->detent_s = d->reason == AEGIS_REASON_RULE_DENIES ? app->detent_s : whitelist->detent_s;
	d->actions = actions_for(d->reason, app, config);
	d->verdict = verdict_for(d->actions, config->mode);
	d->report = !!(d->actions & ~AEGIS_ACTION_ALLOW);
	return true;
}

#endif
