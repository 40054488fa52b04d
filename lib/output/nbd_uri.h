/* SPDX-License-Identifier: MIT */
/*
 * The name of an export of an NBD server, as the NBD project's doc/uri.md has it. Knows text; must not
 * know sockets. Called by target.c and target_nbd.c.
 */
#ifndef NBD_URI_H
#define NBD_URI_H

#include "base/base.h"

#define NBD_EXPORT_MAX 4096u /* bytes; the protocol's limit */

struct nbd_uri {
	char *host, *port; /* NULL where there is a socket */
	char *socket;      /* the path of a Unix socket, or NULL */
	char *export;      /* may be empty */
};

/* Whether a name begins as a URI does, with "SCHEME://". */
bool nbd_uri_like(const char *name);
/* shown: printable name. -EINVAL: no NBD URI, or nothing that can be spoken here; -ENOMEM.
 * nbd_uri_free() in both cases. */
int nbd_uri_parse(struct nbd_uri *u, const char *name, const char *shown, struct err *e);
void nbd_uri_free(struct nbd_uri *u);

#endif
