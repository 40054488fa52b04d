/* SPDX-License-Identifier: MIT */
#include "output/nbd_uri.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NBD_PORT "10809" /* IANA's */

bool nbd_uri_like(const char *name)
{
	const char *p = name;

	if (!isalpha((unsigned char)*p))
		return false;
	while (isalnum((unsigned char)*p) || (*p && strchr("+-.", *p)))
		p++;
	return strncmp(p, "://", 3) == 0;
}

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* n bytes, percent-encoded, as a string. */
static int decode(char **out, const char *text, size_t n, const char *shown, struct err *e)
{
	char *to = *out = malloc(n + 1);

	if (!to)
		return fail(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		int high, low;

		if (text[i] != '%') {
			*to++ = text[i];
			continue;
		}
		high = n - i > 2 ? hex(text[i + 1]) : -1;
		low = n - i > 2 ? hex(text[i + 2]) : -1;
		if (high < 0 || low < 0)
			return fail(e, EINVAL, "%s: %% is not followed by two hexadecimal digits (%%25 is a %%)",
				    shown);
		if (!high && !low)
			return fail(e, EINVAL, "%s: names cannot contain %%00", shown);
		*to++ = (char)(high << 4 | low);
		i += 2;
	}
	*to = '\0';
	return 0;
}

static bool is_port(const char *s, size_t n)
{
	unsigned long v = 0;

	if (!n || n > 5)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]))
			return false;
		v = v * 10 + (unsigned long)(s[i] - '0');
	}
	return v && v <= 65535;
}

/* HOST[:PORT], or [IPv6][:PORT]. */
static int parse_authority(struct nbd_uri *u, const char *s, size_t n, const char *shown, struct err *e)
{
	const char *end = s + n, *host = s, *host_end, *port = NULL;

	if (memchr(s, '@', n))
		return fail(e, EINVAL, "%s: user names are not supported", shown);
	if (n && *s == '[') {
		host_end = memchr(s, ']', n);
		if (!host_end || (host_end + 1 < end && host_end[1] != ':'))
			return fail(e, EINVAL, "%s: expected [IPv6 ADDRESS] or [IPv6 ADDRESS]:PORT", shown);
		host++;
		if (host_end + 1 < end)
			port = host_end + 2;
	} else {
		host_end = memchr(s, ':', n);
		if (host_end)
			port = host_end + 1;
		else
			host_end = end;
	}
	if (host == host_end)
		return fail(e, EINVAL, "%s: has no host (nbd://HOST[:PORT]/EXPORT)", shown);
	if (port && !is_port(port, (size_t)(end - port)))
		return fail(e, EINVAL, "%s: the port must be a number from 1 to 65535", shown);
	u->port = port ? strndup(port, (size_t)(end - port)) : strdup(NBD_PORT);
	if (!u->port)
		return fail(e, ENOMEM, "out of memory");
	return decode(&u->host, host, (size_t)(host_end - host), shown, e);
}

static int parse_query(struct nbd_uri *u, const char *s, bool local, const char *shown, struct err *e)
{
	while (*s) {
		const size_t n = strcspn(s, "&");
		const char *eq = memchr(s, '=', n);
		const size_t key = eq ? (size_t)(eq - s) : n;
		int r = 0;

		if (!strncmp(s, "tls-", 4))
			return fail(e, EINVAL, "%s: TLS is not supported: use a Unix socket, or a tunnel (ssh -L)",
				    shown);
		if (!local || !eq || key != 6 || strncmp(s, "socket", 6))
			return n ? fail(e, EINVAL, "%s: the parameter %.*s is not supported%s", shown,
					(int)min_u64(key, 40), s,
					local ? "" : " (nbd://HOST[:PORT]/EXPORT has none)")
				 : fail(e, EINVAL, "%s: has an empty parameter", shown);
		if (u->socket)
			return fail(e, EINVAL, "%s: names two sockets", shown);
		r = decode(&u->socket, eq + 1, n - key - 1, shown, e);
		if (r < 0)
			return r;
		s += n + (s[n] == '&');
	}
	return 0;
}

int nbd_uri_parse(struct nbd_uri *u, const char *name, const char *shown, struct err *e)
{
	const size_t scheme = strcspn(name, ":");
	const bool local = scheme == 8 && !strncasecmp(name, "nbd+unix", 8);
	const char *authority, *path, *end, *query;
	size_t n;
	int r = 0;

	*u = (struct nbd_uri){0};
	if (!nbd_uri_like(name) || (!local && (scheme != 3 || strncasecmp(name, "nbd", 3)))) {
		if (!strncasecmp(name, "nbds:", 5) || !strncasecmp(name, "nbds+unix:", 10))
			return fail(e, EINVAL, "%s: TLS is not supported: use a Unix socket, or a tunnel (ssh -L)",
				    shown);
		if (!strncmp(name, "iscsi:", 6))
			return fail(e, EINVAL, "%s: is an iSCSI LUN, not a path; examples/with-disk.sh attaches it",
				    shown);
		return fail(e, EINVAL,
			    "%s: only nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH are "
			    "supported (./ before it names a file)", shown);
	}
	authority = name + scheme + 3;
	if (strchr(authority, '#'))
		return fail(e, EINVAL, "%s: contains # (%%23 in a name)", shown);
	n = strcspn(authority, "/?");
	path = authority + n + (authority[n] == '/');
	end = path + strcspn(path, "?");
	query = *end ? end + 1 : end;
	if (!local)
		r = parse_authority(u, authority, n, shown, e);
	else if (n)
		r = fail(e, EINVAL, "%s: a Unix socket has no host (nbd+unix:///EXPORT?socket=PATH)", shown);
	if (!r)
		r = decode(&u->export, path, (size_t)(end - path), shown, e);
	if (!r && strlen(u->export) > NBD_EXPORT_MAX)
		r = fail(e, EINVAL, "the name of the export is longer than %u bytes", NBD_EXPORT_MAX);
	if (!r)
		r = parse_query(u, query, local, shown, e);
	if (!r && local && (!u->socket || !*u->socket))
		r = fail(e, EINVAL, "%s: names no socket (nbd+unix:///EXPORT?socket=PATH)", shown);
	return r;
}

void nbd_uri_free(struct nbd_uri *u)
{
	free(u->host);
	free(u->port);
	free(u->socket);
	free(u->export);
	*u = (struct nbd_uri){0};
}
