/* SPDX-License-Identifier: MIT */
/* Ways for a file to arrive: dribble, socket, reset. */
#include "mkvmdk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void send_file(const char *path, int to, size_t chunk)
{
	int fd = open(path, O_RDONLY);
	char *buf = grab(chunk, 1);
	ssize_t n = 0;

	if (fd < 0)
		die(1, "%s: %s", path, strerror(errno));
	while ((n = read(fd, buf, chunk)) > 0)
		for (ssize_t done = 0, put; done < n; done += put) {
			put = write(to, buf + done, (size_t)(n - done));
			if (put < 0)
				die(1, "write: %s", strerror(errno));
		}
	close(fd);
	free(buf);
}

#define CHUNKS_MAX 16

/* A pause is long enough for everything before it to be taken; that it was is for no test to rely on. */
int dribble(int argc, char **argv)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	const uint64_t stalls = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
	size_t chunk[CHUNKS_MAX], chunks = 0;
	uint64_t size, pos = 0, stalled = 0;
	struct stat st;
	char *end;
	int fd;

	if (argc < 2 || argc > 3)
		die(2, "usage: mkvmdk dribble FILE CHUNK[,CHUNK...] [STALLS]");
	for (end = argv[1]; chunks < CHUNKS_MAX && *end; end += *end == ',') {
		chunk[chunks] = strtoul(end, &end, 10);
		if (!chunk[chunks++] || (*end && *end != ','))
			die(2, "bad chunk in '%s'", argv[1]);
	}
	fd = open(argv[0], O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0)
		die(1, "%s: %s", argv[0], strerror(errno));
	size = (uint64_t)st.st_size;
	for (size_t i = 0; pos < size; i++) {
		const size_t n = chunk[i % chunks];
		char *buf = grab(n, 1);
		const ssize_t got = read(fd, buf, n);

		for (ssize_t done = 0, put; done < got; done += put) {
			put = write(STDOUT_FILENO, buf + done, (size_t)(got - done));
			if (put < 0)
				die(1, "write: %s", strerror(errno));
		}
		free(buf);
		if (got <= 0)
			die(1, "%s: became shorter", argv[0]);
		pos += (uint64_t)got;
		if (stalled < stalls && pos > (stalled + 1) * size / (stalls + 1)) {
			stalled++;
			nanosleep(&pause, NULL);
		}
	}
	close(fd);
	return 0;
}

int bring(int argc, char **argv)
{
	int end[2], status;
	pid_t child;

	if (argc < 2)
		die(2, "usage: mkvmdk socket FILE COMMAND...");
	signal(SIGPIPE, SIG_IGN); /* the command may have enough */
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, end) < 0 || (child = fork()) < 0)
		die(1, "socket: %s", strerror(errno));
	if (!child) {
		signal(SIGPIPE, SIG_DFL);
		dup2(end[0], STDIN_FILENO);
		close(end[0]);
		close(end[1]);
		execvp(argv[1], argv + 1);
		die(1, "%s: %s", argv[1], strerror(errno));
	}
	close(end[0]);
	send_file(argv[0], end[1], 65536);
	close(end[1]);
	if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		die(1, "%s: did not exit", argv[1]);
	return WEXITSTATUS(status);
}

int reset(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct linger linger = {.l_onoff = 1};
	socklen_t len = sizeof(at);
	int status, unread, file, to, from, door = socket(AF_INET, SOCK_STREAM, 0);
	uint64_t left;
	pid_t child;

	if (argc < 3)
		die(2, "usage: mkvmdk reset FILE BYTES COMMAND...");
	left = strtoull(argv[1], NULL, 10);
	signal(SIGPIPE, SIG_IGN);
	to = socket(AF_INET, SOCK_STREAM, 0);
	if (door < 0 || to < 0 || bind(door, (struct sockaddr *)&at, len) < 0 ||
	    listen(door, 1) < 0 || getsockname(door, (struct sockaddr *)&at, &len) < 0 ||
	    connect(to, (struct sockaddr *)&at, len) < 0 || (from = accept(door, NULL, NULL)) < 0 ||
	    (child = fork()) < 0)
		die(1, "socket: %s", strerror(errno));
	if (!child) {
		signal(SIGPIPE, SIG_DFL);
		dup2(from, STDIN_FILENO);
		close(from);
		close(door);
		close(to);
		execvp(argv[2], argv + 2);
		die(1, "%s: %s", argv[2], strerror(errno));
	}
	close(from);
	file = open(argv[0], O_RDONLY);
	while (left) {
		ssize_t n = sendfile(to, file, NULL, left < BUF_SIZE ? left : BUF_SIZE);

		if (n <= 0)
			die(1, "%s: %s", argv[0], n ? strerror(errno) : "is too short");
		left -= (uint64_t)n;
	}
	/* what the other side has not got would be lost */
	while (ioctl(to, SIOCOUTQ, &unread) == 0 && unread)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	setsockopt(to, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(to);
	if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		die(1, "%s: did not exit", argv[2]);
	return WEXITSTATUS(status);
}
