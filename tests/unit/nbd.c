/* SPDX-License-Identifier: MIT */
/* A server that says nothing. */
#include "unit.h"

#include "output/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define NBD_SIZE (1u << 20)

static void nbd_say(int fd, const void *p, size_t n)
{
	if (write(fd, p, n) != (ssize_t)n)
		_exit(1);
}

/* Shakes hands on one connection, and answers no request. */
static void nbd_serve(int listening)
{
	static const uint8_t greeting[18] = "NBDMAGICIHAVEOPT\0\3";
	static const uint8_t reply[] = {0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0};
	static const uint8_t unsupported[] = {8, 0x80, 0, 0, 1, 0, 0, 0, 0};
	static const uint8_t info[] = {7, 0, 0, 0, 3, 0, 0, 0, 12, 0, 0,
				       0, 0, 0, 0, 0, NBD_SIZE >> 16, 0, 0, 0, 5};
	static const uint8_t ack[] = {7, 0, 0, 0, 1, 0, 0, 0, 0};
	int fd = accept(listening, NULL, NULL);
	uint8_t buf[256];

	nbd_say(fd, greeting, sizeof(greeting));
	if (read(fd, buf, 4) != 4 || recv(fd, buf, 16, MSG_WAITALL) != 16)
		_exit(1);
	nbd_say(fd, reply, sizeof(reply));
	nbd_say(fd, unsupported, sizeof(unsupported));
	if (recv(fd, buf, 24, MSG_WAITALL) != 24)
		_exit(1);
	nbd_say(fd, reply, sizeof(reply));
	nbd_say(fd, info, sizeof(info));
	nbd_say(fd, reply, sizeof(reply));
	nbd_say(fd, ack, sizeof(ack));
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	_exit(0);
}

static void test_nbd_silence(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/vmdksync.XXXXXX", uri[128];
	const struct target_opts o = {.need = NBD_SIZE, .silence = 1};

	if (!mkdtemp(dir))
		die("mkdtemp");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", dir);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/s", dir);
	for (unsigned in_line = 0; in_line < 2; in_line++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status;
		struct err e = {.set = false};
		struct target *t = NULL;
		struct queue *q = NULL;
		uint8_t buf[SECTOR];
		struct queue_test seen = {.last = 12345};
		struct xfer x[3];
		pid_t pid;

		if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 1) || (pid = fork()) < 0)
			die("a server");
		if (!pid)
			nbd_serve(fd);
		CHECK(target_open(&t, uri, &o, &e) == 0);
		CHECK(queue_new(&q, 4, in_line, &e) == 0);
		CHECK(t->size == NBD_SIZE && t->rereads && !t->zero_ways);
		for (unsigned i = 0; i < 3; i++) {
			x[i] = (struct xfer){.kind = i == 2 ? XFER_WRITE : XFER_READ, .buf = buf,
					     .len = SECTOR, .off = i * SECTOR, .owner = &seen,
					     .done = on_done};
			target_put(t, q, &x[i]);
		}
		while (queue_busy(q))
			CHECK(queue_wait(q, 1) >= 0);
		CHECK(seen.done == 3 && seen.last == -ETIMEDOUT);
		CHECK_STR(target_why(t, -ETIMEDOUT), "the server has not answered for 1 seconds");
		/* nothing is sent any more */
		target_put(t, q, &x[0]);
		CHECK(queue_wait(q, 1) == 1 && seen.done == 4 && seen.last == -ETIMEDOUT);
		queue_free(q);
		target_free(t);
		close(fd);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		unlink(addr.sun_path);
	}
	rmdir(dir);
}

const struct test nbd_tests[] = {
	{"nbd-silence", test_nbd_silence},
	{NULL, NULL},
};
