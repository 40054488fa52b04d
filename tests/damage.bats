# SPDX-License-Identifier: MIT
# Damaged, odd and foreign images: what must be refused is, in one line that names the place, and
# the target stays as it was.

load helpers

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# What mkvmdk makes before the damage.
recipe() {
	case $1 in
	cowd) echo 'cowd capacity=10000 alloc=0,1,5000-5003,9999' ;;
	cowd1) echo 'cowd capacity=4096 alloc=0,1,100' ;;
	cowd8) echo 'cowd capacity=65536 grain=8 alloc=0-3' ;;
	hosted) echo 'hosted capacity=66000 alloc=0,1,512,last rgd=1 desc=1' ;;
	hosted0) echo 'hosted capacity=66000 alloc=0,1,512,last rgd=0 desc=1' ;;
	hosted8r) echo 'hosted capacity=8192 grain=8 alloc=0-3 rgd=1 desc=1' ;;
	hosted4096r) echo 'hosted capacity=2500000 gtes=4096 grain=8 alloc=100000 tables=all rgd=1' ;;
	hosted8) echo 'hosted capacity=8192 grain=8 alloc=0-3 rgd=0 desc=1' ;;
	ses) echo 'sesparse capacity=33000 alloc=0,1,4095-4097,last' ;;
	*) return 1 ;;
	esac
}

# group|recipe|damage|words that the message holds
rows() {
	grep -v '^#' <<-'END'
	cowd-cut|cowd|cut=0|is empty (0 bytes)
	cowd-cut|cowd|cut=1|is not a recognized VMDK
	cowd-cut|cowd|cut=3|is not a recognized VMDK
	cowd-cut|cowd|cut=4|COWD header
	cowd-cut|cowd|cut=31|COWD header
	cowd-cut|cowd|cut=511|COWD header
	cowd-cut|cowd|cut=512|COWD header
	cowd-cut|cowd|cut=gd-1|COWD header
	cowd-cut|cowd|cut=gd|the grain directory (file sectors 4 to 4) lies outside the file of 2048 bytes
	cowd-cut|cowd|cut=gd+1|grain directory (file sectors 4 to 4) lies outside the file of 2049 bytes
	cowd-cut|cowd|cut=gdend-1|grain directory (file sectors 4 to 4) lies outside the file of 2059 bytes
	cowd-cut|cowd|cut=gdend|grain table 0 at file sector 5 lies outside the file of 2060 bytes
	cowd-cut|cowd|cut=gdend+1|grain table 0 at file sector 5 lies outside
	cowd-cut|cowd|cut=gt:0|grain table 0 at file sector 5 lies outside
	cowd-cut|cowd|cut=gt:0+8000|grain table 0 at file sector 5 lies outside
	cowd-cut|cowd|cut=gtend:0-1|grain table 0 at file sector 5 lies outside the file of 18943 bytes
	cowd-cut|cowd|cut=gtend:0|grain table 1 at file sector 39 lies outside
	cowd-cut|cowd|cut=gt:1-1|grain table 1 at file sector 39 lies outside
	cowd-cut|cowd|cut=gt:1|grain table 1 at file sector 39 lies outside
	cowd-cut|cowd|cut=gt:1+1|grain table 1 at file sector 39 lies outside
	cowd-cut|cowd|cut=gtend:1-1|grain table 1 at file sector 39 lies outside
	cowd-cut|cowd|cut=gtend:1|grain table 2 at file sector 75 lies outside
	cowd-cut|cowd|cut=gtend:2-1|grain table 2 at file sector 75 lies outside
	cowd-cut|cowd|cut=gtend:2|grain 9999 at file sector 107 lies outside the file of 54784 bytes
	cowd-cut|cowd|cut=gtend:2+1|grain 9999 at file sector 107 lies outside
	cowd-cut|cowd|cut=eof-256|grain 9999 at file sector 107 lies outside
	cowd-cut|cowd|cut=eof-1|grain 9999 at file sector 107 lies outside the file of 55295 bytes
	cowd-cut|cowd1|cut=grain:0|grain 0 at file sector 37 lies outside
	cowd-cut|cowd1|cut=grain:0+1|grain 0 at file sector 37 lies outside
	cowd-cut|cowd1|cut=grain:1-1|grain 0 at file sector 37 lies outside
	cowd-cut|cowd1|cut=grain:1|grain 1 at file sector 38 lies outside
	cowd-cut|cowd1|cut=grain:1+100|grain 1 at file sector 38 lies outside
	cowd-cut|cowd1|cut=grain:100|grain 100 at file sector 39 lies outside
	cowd-cut|cowd1|cut=grainend:100-1|grain 100 at file sector 39 lies outside
	cowd-entry|cowd|gde=0:1|directory entry 0 is 1,
	cowd-entry|cowd|gde=0:2|directory entry 0 is 2,
	cowd-entry|cowd|gde=1:3|directory entry 1 is 3,
	cowd-entry|cowd|gde=last:gd|directory entry 2 is 4,
	cowd-entry|cowd|gde=0:eof-1|grain table 0 at file sector 107 lies outside
	cowd-entry|cowd|gde=1:eof|grain table 1 at file sector 108 lies outside
	cowd-entry|cowd|gde=2:0xFFFFFFFF|grain table 2 at file sector 4294967295 lies outside
	cowd-entry|cowd|gde=1:gt:0|grain table 1 at file sector 5 lies on sectors of another
	cowd-entry|cowd|gde=2:gt:1+31|grain table 2 at file sector 70 lies on sectors of another
	cowd-entry|cowd|gde=1:gt:2-1|grain table 2 at file sector 75 lies on sectors of another
	cowd-entry|cowd|gte=0:2|table entry of grain 0 is 2,
	cowd-entry|cowd|gte=1:3|table entry of grain 1 is 3,
	cowd-entry|cowd|gte=5000:gd|table entry of grain 5000 is 4,
	cowd-entry|cowd|gte=0:eof-1|grain 9999 at file sector 107 lies on sectors of another
	cowd-entry|cowd|gte=0:eof|grain 0 at file sector 108 lies outside
	cowd-entry|cowd|gte=last:0xFFFFFFFF|grain 9999 at file sector 4294967295 lies outside
	cowd-entry|cowd|gte=0:gt:0|grain 0 at file sector 5 lies on sectors of another
	cowd-entry|cowd|gte=5002:gtend:2-1|grain 5002 at file sector 106 lies on sectors of another
	cowd-entry|cowd|gte=1:gt:1|grain 1 at file sector 39 lies on sectors of another
	cowd-entry|cowd|gte=1:grain:0|grain 1 at file sector 37 lies on sectors of another
	cowd-entry|cowd|gte=5001:grain:5000|grain 5001 at file sector 71 lies on sectors of another
	cowd-entry|cowd|gte=9999:grain:0|grain 9999 at file sector 37 lies on sectors of another
	cowd-entry|cowd8|gte=1:grain:0+7|grain 1 at file sector
	cowd-entry|cowd8|gte=3:grain:1-7|grain 3 at file sector
	cowd-entry|cowd8|gte=2:eof-1|grain 2 at file sector
	cowd-entry|cowd8|gte=2:eof-7|grain 2 at file sector
	cowd-header|cowd|hdr=magic:0|is not a recognized VMDK (it begins with 00 00 00 00
	cowd-header|cowd|hdr=magic:0x44574F63|is not a recognized VMDK
	cowd-header|cowd|hdr=version:0|COWD version 0 is unknown
	cowd-header|cowd|hdr=version:2|COWD version 2 is a disk of VMware Workstation
	cowd-header|cowd|hdr=version:3|COWD version 3 is a disk of VMware Workstation
	cowd-header|cowd|hdr=version:4|COWD version 4 is unknown
	cowd-header|cowd|hdr=version:0xFFFFFFFF|COWD version 4294967295 is unknown
	cowd-header|cowd|hdr=flags:0|COWD flags 0x0
	cowd-header|cowd|hdr=flags:1|COWD flags 0x1
	cowd-header|cowd|hdr=flags:2|COWD flags 0x2
	cowd-header|cowd|hdr=flags:7|COWD flags 0x7
	cowd-header|cowd|hdr=flags:0x10003|COWD flags 0x10003
	cowd-header|cowd|hdr=flags:0x20003|COWD flags 0x20003
	cowd-header|cowd|hdr=flags:0x40003|COWD flags 0x40003
	cowd-header|cowd|hdr=flags:0x80000003|COWD flags 0x80000003
	cowd-header|cowd|hdr=capacity:0|capacity is 0 sectors
	cowd-header|cowd|hdr=capacity:1|3 directory entries, but 1 sector needs 1
	cowd-header|cowd|hdr=capacity:4095|3 directory entries, but 4095 sectors need 1
	cowd-header|cowd|hdr=capacity:12289|3 directory entries, but 12289 sectors need 4
	cowd-header|cowd|hdr=capacity:4096|3 directory entries, but 4096 sectors need 1
	cowd-header|cowd|hdr=capacity:0xFFFFFFFF|3 directory entries, but 4294967295 sectors need 1048576
	cowd-header|cowd|hdr=grain:0|grain size 0 is not a power of two
	cowd-header|cowd|hdr=grain:3|grain size 3 is not a power of two
	cowd-header|cowd|hdr=grain:4096|grain size 4096 is not a power of two
	cowd-header|cowd|hdr=grain:0x80000000|grain size 2147483648 is not a power of two
	cowd-header|cowd|hdr=grain:0xFFFFFFFF|grain size 4294967295 is not a power of two
	cowd-header|cowd|hdr=gd:0|grain directory at file sector 0 lies inside the header
	cowd-header|cowd|hdr=gd:3|grain directory at file sector 3 lies inside the header
	cowd-header|cowd|hdr=gd:eof|grain directory (file sectors 108 to 108) lies outside
	cowd-header|cowd|hdr=gd:0xFFFFFFFF|grain directory (file sectors 4294967295 to 4294967295) lies outside
	cowd-header|cowd|hdr=gdes:0|0 directory entries, but 10000 sectors need 3
	cowd-header|cowd|hdr=gdes:2|2 directory entries, but 10000 sectors need 3
	cowd-header|cowd|hdr=gdes:5|5 directory entries, but 10000 sectors need 3
	cowd-header|cowd|hdr=gdes:20|hosted COW disk of VMware 2 (20 directory entries)
	cowd-header|cowd|hdr=gdes:0xFFFFFFFF|4294967295 directory entries, but 10000 sectors need 3
	hosted-cut|hosted|cut=0|is empty (0 bytes)
	hosted-cut|hosted|cut=3|is not a recognized VMDK
	hosted-cut|hosted|cut=4|hosted sparse header
	hosted-cut|hosted|cut=79|hosted sparse header
	hosted-cut|hosted|cut=desc-1|hosted sparse header
	hosted-cut|hosted|cut=desc|grain directory at file sector 30 lies outside the file of 512 bytes
	hosted-cut|hosted|cut=desc+1|grain directory at file sector 30 lies outside
	hosted-cut|hosted|cut=rgd-1|grain directory at file sector 30 lies outside
	hosted-cut|hosted|cut=rgd|grain directory at file sector 30 lies outside
	hosted-cut|hosted|cut=rgdend|grain directory at file sector 30 lies outside
	hosted-cut|hosted|cut=rgt:0+1|grain directory at file sector 30 lies outside
	hosted-cut|hosted|cut=rgtend:1-1|grain directory at file sector 30 lies outside
	hosted-cut|hosted|cut=gd|overhead of 128 sectors lies outside the file of 15360 bytes
	hosted-cut|hosted|cut=gd+1|overhead of 128 sectors
	hosted-cut|hosted|cut=gtend:1|overhead of 128 sectors
	hosted-cut|hosted|cut=grain:0-1|overhead of 128 sectors lies outside the file of 65535 bytes
	hosted-cut|hosted|hdr=overhead:1 cut=gd|the grain directory (file sectors 30 to 30) lies outside
	hosted-cut|hosted|hdr=overhead:1 cut=gdend-1|the grain directory (file sectors 30 to 30) lies outside the file of 15367 bytes
	hosted-cut|hosted|hdr=overhead:1 cut=gdend|grain table 0 at file sector 31 lies outside
	hosted-cut|hosted|hdr=overhead:1 cut=gt:0+1000|grain table 0 at file sector 31 lies outside
	hosted-cut|hosted|hdr=overhead:1 cut=gtend:0-1|grain table 0 at file sector 31 lies outside
	hosted-cut|hosted|hdr=overhead:1 cut=gtend:0|grain table 1 at file sector 35 lies outside
	hosted-cut|hosted|hdr=overhead:1 cut=gtend:1-1|grain table 1 at file sector 35 lies outside
	hosted-cut|hosted|hdr=overhead:1 cut=gtend:1|grain 0 at file sector 128 lies outside
	hosted-cut|hosted|cut=grain:0|grain 0 at file sector 128 lies outside the file of 65536 bytes
	hosted-cut|hosted|cut=grain:0+1|grain 0 at file sector 128 lies outside
	hosted-cut|hosted|cut=grainend:0-1|grain 0 at file sector 128 lies outside
	hosted-cut|hosted|cut=grain:1|grain 1 at file sector 256 lies outside
	hosted-cut|hosted|cut=grain:1+30000|grain 1 at file sector 256 lies outside
	hosted-cut|hosted|cut=grainend:1|grain 512 at file sector 384 lies outside
	hosted-cut|hosted|cut=grainend:512-1|grain 512 at file sector 384 lies outside
	hosted-cut|hosted|cut=grain:last|grain 515 at file sector 512 lies outside
	hosted-cut|hosted|cut=grain:last+40959|grain 515 at file sector 512 lies outside
	hosted-entry|hosted|gde=0:1|directory entry 0 is 1
	hosted-entry|hosted|gde=0:2|grain table 0 at file sector 2 lies inside the descriptor
	hosted-entry|hosted|gde=1:20|grain table 1 at file sector 20 lies inside the descriptor
	hosted-entry|hosted|gde=0:rgd|grain table 0 at file sector 21 lies inside the redundant grain directory
	hosted-entry|hosted|gde=1:gd|grain table 1 at file sector 30 lies inside the grain directory
	hosted-entry|hosted|gde=0:eof-1|grain table 0 at file sector 639 lies outside
	hosted-entry|hosted|gde=0:eof|grain table 0 at file sector 640 lies outside
	hosted-entry|hosted|gde=1:0xFFFFFFFF|grain table 1 at file sector 4294967295 lies outside
	hosted-entry|hosted|gde=1:gt:0|grain table 1 at file sector 31 lies on sectors of another
	hosted-entry|hosted|gde=1:gt:0+3|grain table 1 at file sector 34 lies on sectors of another
	hosted-entry|hosted|gde=0:0|directory entry 0 and its redundant copy do not agree
	hosted-entry|hosted|gde=1:rgt:1|directory entry 1 and its redundant copy do not agree
	hosted-entry|hosted|rgde=0:0|directory entry 0 and its redundant copy do not agree
	hosted-entry|hosted|rgde=0:1|directory entry 0 is 1
	hosted-entry|hosted|rgde=1:2|redundant grain table 1 at file sector 2 lies inside the descriptor
	hosted-entry|hosted|rgde=1:gt:1|directory entry 1 and its redundant copy do not agree
	hosted-entry|hosted|rgde=1:rgt:0|redundant grain table 1 at file sector 22 lies on sectors of another
	hosted-entry|hosted|rgde=0:eof|redundant grain table 0 at file sector 640 lies outside
	hosted-entry|hosted|gte=0:grain:1|grain table 0 and its redundant copy differ
	hosted-entry|hosted|gte=last:0|grain table 1 and its redundant copy differ
	hosted-entry|hosted|rgte=1:0|grain table 0 and its redundant copy differ
	hosted-entry|hosted|rgte=300:eof|grain table 0 and its redundant copy differ
	hosted-entry|hosted4096r|rgte=100001:77|grain table 24 and its redundant copy differ
	hosted-entry|hosted4096r|rgte=300001:77|grain table 73 and its redundant copy differ
	hosted-entry|hosted|gte=1:grain:0 rgte=1:grain:0|grain 1 at file sector 128 lies on sectors of another
	hosted-entry|hosted|gte=1:rgt:0 rgte=1:rgt:0|grain 1 at file sector 22 lies inside the grain directory
	hosted-entry|hosted|gte=1:rgd rgte=1:rgd|grain 1 at file sector 21 lies inside the
	hosted-entry|hosted0|gte=0:1|table entry of grain 0 is 1, but the header does not allow zeroed grains
	hosted-entry|hosted0|gte=0:2|grain 0 at file sector 2 lies inside the
	hosted-entry|hosted0|gte=0:20|grain 0 at file sector 20 lies inside the
	hosted-entry|hosted0|gte=512:gd|grain 512 at file sector
	hosted-entry|hosted0|gte=512:gt:0|grain 512 at file sector
	hosted-entry|hosted0|gte=0:gtend:1-1|grain 0 at file sector
	hosted-entry|hosted0|gte=0:eof-1|grain 0 at file sector
	hosted-entry|hosted0|gte=0:eof|grain 0 at file sector
	hosted-entry|hosted0|gte=1:0xFFFFFFFF|grain 1 at file sector 4294967295 lies outside
	hosted-entry|hosted0|gte=1:grain:0|lies on sectors of another
	hosted-entry|hosted0|gte=last:grain:0+127|grain 515 at file sector
	hosted-entry|hosted8|gte=1:grain:0+7|grain 1 at file sector
	hosted-entry|hosted8|gte=3:grain:1-7|grain 3 at file sector
	hosted-entry|hosted8|gte=0:2|grain 0 at file sector 2 lies inside the descriptor
	hosted-entry|hosted8|gte=0:13|grain 0 at file sector 13 lies inside the descriptor
	hosted-entry|hosted8|gte=0:gd|lies inside the grain directory
	hosted-entry|hosted8r|gte=1:rgt:0 rgte=1:rgt:0|grain 1 at file sector 22 lies on sectors of another
	hosted-entry|hosted8r|gte=1:rgd rgte=1:rgd|grain 1 at file sector 21 lies inside the redundant grain directory
	hosted-entry|hosted8|gte=3:eof-7|grain 3 at file sector
	hosted-header|hosted|hdr=magic:0|is not a recognized VMDK
	hosted-header|hosted|hdr=version:0|hosted sparse version 0 is unknown
	hosted-header|hosted|hdr=version:4|hosted sparse version 4 is unknown
	hosted-header|hosted|hdr=version:0xFFFFFFFF|hosted sparse version 4294967295 is unknown
	hosted-header|hosted|hdr=flags:0x10003|flags 0x10003 ask for compressed grains without markers, or the reverse
	hosted-header|hosted|hdr=flags:0x20003|flags 0x20003 ask for compressed grains without markers, or the reverse
	hosted-header|hosted|hdr=flags:0x40003|flags 0x40003 ask for unknown features
	hosted-header|hosted|hdr=flags:0x80000003|flags 0x80000003 ask for unknown features
	hosted-header|hosted|hdr=capacity:0|capacity of 0 sectors
	hosted-header|hosted|hdr=capacity:0x2000000001|capacity of 137438953473 sectors
	hosted-header|hosted|hdr=capacity:0x8000000000000000|capacity of 9223372036854775808 sectors
	hosted-header|hosted|hdr=capacity:0xFFFFFFFFFFFFFFFF|capacity of 18446744073709551615 sectors
	hosted-header|hosted|hdr=capacity:0x2000000000|grain directory (file sectors 30 to
	hosted-header|hosted8|hdr=capacity:0x2000000000 hdr=grain:1 hdr=gtes:128|a directory of 1073741824 entries is over the limit
	hosted-header|hosted8|hdr=capacity:0x2000000000 hdr=grain:1 hdr=gtes:4096|a directory of 33554432 entries is over the limit
	hosted-header|hosted|hdr=capacity:0xFFFFFFFF|the redundant grain directory at file sector 21 lies inside the grain directory
	hosted-header|hosted|hdr=grain:0|grain size 0 is not a power of two
	hosted-header|hosted|hdr=grain:3|grain size 3 is not a power of two
	hosted-header|hosted|hdr=grain:0x10000|grain size 65536 is not a power of two
	hosted-header|hosted|hdr=grain:0x80000000|grain size 2147483648 is not a power of two
	hosted-header|hosted|hdr=grain:0x8000000000000000|grain size 9223372036854775808 is not a power of two
	hosted-header|hosted|hdr=gtes:0|0 entries a grain table
	hosted-header|hosted|hdr=gtes:64|64 entries a grain table
	hosted-header|hosted|hdr=gtes:127|127 entries a grain table
	hosted-header|hosted|hdr=gtes:8192|8192 entries a grain table
	hosted-header|hosted|hdr=gtes:0x80000000|2147483648 entries a grain table
	hosted-header|hosted|hdr=gd:0|grain directory at file sector 0
	hosted-header|hosted|hdr=gd:1|lies inside the
	hosted-header|hosted|hdr=gd:eof|the grain directory (file sectors 640 to 640) lies outside
	hosted-header|hosted|hdr=gd:eof+1|grain directory at file sector 641 lies outside
	hosted-header|hosted|hdr=gd:0xFFFFFFFFFFFFFFFF|grain directory at file sector 18446744073709551615
	hosted-header|hosted|hdr=rgd:0|redundant grain directory at file sector 0
	hosted-header|hosted|hdr=rgd:gd|redundant grain directory at file sector 30, grain directory at 30
	hosted-header|hosted|hdr=rgd:1|lies inside the descriptor
	hosted-header|hosted|hdr=rgd:eof|redundant grain directory (file sectors 640 to 640) lies outside
	hosted-header|hosted|hdr=rgd:eof+1|redundant grain directory at file sector 641
	hosted-header|hosted|hdr=rgd:0xFFFFFFFFFFFFFFFF|redundant grain directory at file sector 18446744073709551615
	hosted-header|hosted|hdr=overhead:0|overhead of 0 sectors
	hosted-header|hosted|hdr=overhead:eof+1|overhead of 641 sectors
	hosted-header|hosted|hdr=overhead:0xFFFFFFFFFFFFFFFF|overhead of 18446744073709551615 sectors
	hosted-header|hosted|hdr=nl1:0x0D|line ends were changed
	hosted-header|hosted|hdr=nl2:0|line ends were changed
	hosted-header|hosted|hdr=nl3:0x0A|line ends were changed
	hosted-header|hosted|hdr=nl4:0x0D|line ends were changed
	hosted-header|hosted|hdr=compress:2|compression 2 is unknown
	hosted-header|hosted|hdr=compress:0xFFFF|compression 65535 is unknown
	hosted-header|hosted|hdr=descoff:0|descriptor of 20 sectors at file sector 0
	hosted-header|hosted|hdr=descoff:gd-1|descriptor
	hosted-header|hosted|hdr=descoff:eof-1|the descriptor (file sectors 639 to 659) lies outside
	hosted-header|hosted|hdr=descoff:eof+1|descriptor of 20 sectors at file sector 641
	hosted-header|hosted|hdr=descoff:0xFFFFFFFFFFFFFFFF|descriptor of 20 sectors at file sector 18446744073709551615
	hosted-header|hosted|hdr=descsize:2049|descriptor of 2049 sectors at file sector 1
	hosted-header|hosted|hdr=descsize:0xFFFFFFFFFFFFFFFF|descriptor of 18446744073709551615 sectors
	sesparse-cut|ses|cut=0|is empty (0 bytes)
	sesparse-cut|ses|cut=4|is not a recognized VMDK
	sesparse-cut|ses|cut=7|is not a recognized VMDK
	sesparse-cut|ses|cut=8|SEsparse header lies outside the file
	sesparse-cut|ses|cut=511|SEsparse header lies outside the file
	sesparse-cut|ses|cut=512|the volatile header of 1 sector at file sector 1 lies outside
	sesparse-cut|ses|cut=513|the volatile header of 1 sector at file sector 1 lies outside
	sesparse-cut|ses|cut=1023|the volatile header of 1 sector at file sector 1 lies outside
	sesparse-cut|ses|cut=1024|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=1025|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=gd-1|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=gd|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=gd+8|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=gdend|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=gd+1048575|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=gt:0-1|the grain directory of 2048 sectors at file sector 4096 lies outside
	sesparse-cut|ses|cut=gt:0|the area of the grain tables of 2048 sectors at file sector 6144 lies outside
	sesparse-cut|ses|cut=gt:0+8|the area of the grain tables of 2048 sectors at file sector 6144 lies outside
	sesparse-cut|ses|cut=gtend:0|the area of the grain tables of 2048 sectors at file sector 6144 lies outside
	sesparse-cut|ses|cut=gt:1|the area of the grain tables of 2048 sectors at file sector 6144 lies outside
	sesparse-cut|ses|cut=gtend:1|the area of the grain tables of 2048 sectors at file sector 6144 lies outside
	sesparse-cut|ses|cut=grain:0-1|grain 0 at file sector 12288 lies outside
	sesparse-cut|ses|cut=grain:0|grain 0 at file sector 12288 lies outside
	sesparse-cut|ses|cut=grain:0+1|grain 0 at file sector 12288 lies outside
	sesparse-cut|ses|cut=grainend:0-1|grain 0 at file sector 12288 lies outside
	sesparse-cut|ses|cut=grainend:0|grain 1 at file sector 12296 lies outside
	sesparse-cut|ses|cut=grain:1+4095|grain 1 at file sector 12296 lies outside
	sesparse-cut|ses|cut=grain:4096|grain 4096 at file sector 12312 lies outside
	sesparse-cut|ses|cut=grain:last|grain 4124 at file sector 12328 lies outside
	sesparse-cut|ses|cut=grain:last+1|grain 4124 at file sector 12328 lies outside
	sesparse-cut|ses|cut=grainend:last-1|grain 4124 at file sector 12328 lies outside
	sesparse-header|ses|hdr=magic:0xCAFEBABF|is not a recognized VMDK
	sesparse-header|ses|hdr=magic:0xCAFEBABD|is not a recognized VMDK
	sesparse-header|ses|hdr=magic:0x1CAFEBABE|is not a recognized VMDK
	sesparse-header|ses|hdr=magic:0xBEBAFECA00000000|is not a recognized VMDK
	sesparse-header|ses|hdr=version:0|version is 0x0, only 0x200000001 is known
	sesparse-header|ses|hdr=version:1|version is 0x1, only 0x200000001 is known
	sesparse-header|ses|hdr=version:0x200000000|version is 0x200000000, only 0x200000001 is known
	sesparse-header|ses|hdr=version:0x200000002|version is 0x200000002, only 0x200000001 is known
	sesparse-header|ses|hdr=version:0x100000001|version is 0x100000001, only 0x200000001 is known
	sesparse-header|ses|hdr=version:0x300000001|version is 0x300000001, only 0x200000001 is known
	sesparse-header|ses|hdr=capacity:0|capacity of 0 sectors
	sesparse-header|ses|hdr=capacity:0x2000000001|capacity of 137438953473 sectors
	sesparse-header|ses|hdr=capacity:0x8000000000000000|capacity of 9223372036854775808 sectors
	sesparse-header|ses|hdr=capacity:0xFFFFFFFFFFFFFFFF|capacity of 18446744073709551615 sectors
	sesparse-header|ses|hdr=capacity:0x2000000000|a grain directory of 2048 sectors, but 4194304 tables need 65536
	sesparse-header|ses|hdr=grain:0|grain size is 0x0, only 0x8 is known
	sesparse-header|ses|hdr=grain:7|grain size is 0x7, only 0x8 is known
	sesparse-header|ses|hdr=grain:9|grain size is 0x9, only 0x8 is known
	sesparse-header|ses|hdr=grain:16|grain size is 0x10, only 0x8 is known
	sesparse-header|ses|hdr=gtsize:0|grain table size is 0x0, only 0x40 is known
	sesparse-header|ses|hdr=gtsize:63|grain table size is 0x3f, only 0x40 is known
	sesparse-header|ses|hdr=gtsize:65|grain table size is 0x41, only 0x40 is known
	sesparse-header|ses|hdr=gtsize:128|grain table size is 0x80, only 0x40 is known
	sesparse-header|ses|hdr=flags:1|flags is 0x1, only 0x0 is known
	sesparse-header|ses|hdr=flags:0x200|flags is 0x200, only 0x0 is known
	sesparse-header|ses|hdr=flags:0x8000000000000000|flags is 0x8000000000000000, only 0x0 is known
	sesparse-header|ses|hdr=reserved1:1|reserved field 1 is 0x1, only 0 and 0x200 are known
	sesparse-header|ses|hdr=reserved1:0x1FF|reserved field 1 is 0x1ff, only 0 and 0x200 are known
	sesparse-header|ses|hdr=reserved1:0x201|reserved field 1 is 0x201, only 0 and 0x200 are known
	sesparse-header|ses|hdr=reserved1:0x400|reserved field 1 is 0x400, only 0 and 0x200 are known
	sesparse-header|ses|hdr=reserved1:0x8000000000000200|reserved field 1 is 0x8000000000000200, only 0 and 0x200 are known
	sesparse-header|ses|hdr=reserved2:1|reserved field 2 is 0x1, only 0 is known
	sesparse-header|ses|hdr=reserved2:0x200|reserved field 2 is 0x200, only 0 is known
	sesparse-header|ses|hdr=reserved3:1|reserved field 3 is 0x1, only 0 is known
	sesparse-header|ses|hdr=reserved4:1|reserved field 4 is 0x1, only 0 is known
	sesparse-header|ses|hdr=reserved4:0x8000000000000000|reserved field 4 is 0x8000000000000000, only 0 is known
	sesparse-header|ses|hdr=vhoff:0|the volatile header of 1 sector at file sector 0 is out of range
	sesparse-header|ses|hdr=vhoff:2|SEsparse volatile header at file sector 2 begins with 0x0, not 0xcafecafe
	sesparse-header|ses|hdr=vhoff:gd|SEsparse volatile header at file sector 4096 begins with 0x1000000000000000, not 0xcafecafe
	sesparse-header|ses|hdr=vhoff:gt:0|the area of the grain tables at file sector 6144 overlaps the volatile header
	sesparse-header|ses|hdr=vhoff:eof|the volatile header of 1 sector at file sector 12336 lies outside
	sesparse-header|ses|hdr=vhoff:0xFFFFFFFFFFFFFFFF|the volatile header of 1 sector at file sector 18446744073709551615 is out of range
	sesparse-header|ses|hdr=vhsize:0|the volatile header of 0 sectors at file sector 1 is out of range
	sesparse-header|ses|hdr=vhsize:eof|the volatile header of 12336 sectors at file sector 1 lies outside
	sesparse-header|ses|hdr=vhsize:0xFFFFFFFFFFFFFFFF|the volatile header of 18446744073709551615 sectors at file sector 1 is out of range
	sesparse-header|ses|hdr=vhsize:6143|the grain directory at file sector 4096 lies inside the volatile header
	sesparse-header|ses|hdr=jhoff:0xFFFFFFFFFFFFFFFF|the journal header of 2 sectors at file sector 18446744073709551615 is out of range
	sesparse-header|ses|hdr=jsize:0xFFFFFFFFFFFFFFFF|the journal of 18446744073709551615 sectors at file sector 2048 is out of range
	sesparse-header|ses|hdr=fboff:0x8000000000000000|the free bitmap of 2048 sectors at file sector 9223372036854775808 is out of range
	sesparse-header|ses|hdr=bmsize:0xFFFFFFFFFFFFFFFF|the backmap of 18446744073709551615 sectors at file sector 10240 is out of range
	sesparse-header|ses|hdr=gsize:0xFFFFFFFFFFFFFFFF|the area of the grains of 18446744073709551615 sectors at file sector 12288 is out of range
	sesparse-header|ses|hdr=gdoff:0|the grain directory of 2048 sectors at file sector 0 is out of range
	sesparse-header|ses|hdr=gdoff:1|the grain directory at file sector 1 lies inside the volatile header
	sesparse-header|ses|hdr=gdoff:gt:0|the area of the grain tables at file sector 6144 overlaps the grain directory
	sesparse-header|ses|hdr=gdoff:gt:0-1|the area of the grain tables at file sector 6144 overlaps the grain directory
	sesparse-header|ses|hdr=gdoff:eof|the grain directory of 2048 sectors at file sector 12336 lies outside
	sesparse-header|ses|hdr=gdoff:eof-1|the grain directory of 2048 sectors at file sector 12335 lies outside
	sesparse-header|ses|hdr=gdoff:0xFFFFFFFFFFFFFFFF|the grain directory of 2048 sectors at file sector 18446744073709551615 is out of range
	sesparse-header|ses|hdr=gdsize:0|the grain directory of 0 sectors at file sector 4096 is out of range
	sesparse-header|ses|hdr=gdsize:2049|the area of the grain tables at file sector 6144 overlaps the grain directory
	sesparse-header|ses|hdr=gdsize:eof|the grain directory of 12336 sectors at file sector 4096 lies outside
	sesparse-header|ses|hdr=gdsize:0xFFFFFFFFFFFFFFFF|the grain directory of 18446744073709551615 sectors at file sector 4096 is out of range
	sesparse-header|ses|hdr=gtoff:0|the area of the grain tables of 2048 sectors at file sector 0 is out of range
	sesparse-header|ses|hdr=gtoff:1|the area of the grain tables at file sector 1 overlaps the volatile header
	sesparse-header|ses|hdr=gtoff:gd|the area of the grain tables at file sector 4096 overlaps the grain directory
	sesparse-header|ses|hdr=gtoff:gd+2047|the area of the grain tables at file sector 6143 overlaps the grain directory
	sesparse-header|ses|hdr=gtoff:eof|the area of the grain tables of 2048 sectors at file sector 12336 lies outside
	sesparse-header|ses|hdr=gtoff:0xFFFFFFFFFFFFFFFF|the area of the grain tables of 2048 sectors at file sector 18446744073709551615 is out of range
	sesparse-header|ses|hdr=gtssize:0|the area of the grain tables of 0 sectors at file sector 6144 is out of range
	sesparse-header|ses|hdr=gtssize:63|directory entry 0 names table 0, but there is room for 0
	sesparse-header|ses|hdr=gtssize:64|directory entry 1 names table 1, but there is room for 1
	sesparse-header|ses|hdr=gtssize:eof|the area of the grain tables of 12336 sectors at file sector 6144 lies outside
	sesparse-header|ses|hdr=gtssize:0xFFFFFFFFFFFFFFFF|the area of the grain tables of 18446744073709551615 sectors at file sector 6144 is out of range
	sesparse-header|ses|hdr=goff:0|the grains begin at file sector 0, before the tables end (8192)
	sesparse-header|ses|hdr=goff:1|the grains begin at file sector 1, before the tables end (8192)
	sesparse-header|ses|hdr=goff:gd|the grains begin at file sector 4096, before the tables end (8192)
	sesparse-header|ses|hdr=goff:8191|the grains begin at file sector 8191, before the tables end (8192)
	sesparse-header|ses|hdr=goff:0xFFFFFFFFFFFFFFFF|the area of the grains of 33000 sectors at file sector 18446744073709551615 is out of range
	sesparse-header|ses|hdr=goff:eof|grain 0 at file sector 12336 lies outside
	sesparse-header|ses|pad=1000000 hdr=gdoff:11000|the grains begin at file sector 12288, inside other metadata
	sesparse-header|ses|hdr=pad:1|bytes 208 to 511 are not zero
	sesparse-header|ses|hdr=pad:0x8000000000000000|bytes 208 to 511 are not zero
	sesparse-header|ses|hdr=vmagic:0|SEsparse volatile header at file sector 1 begins with 0x0, not 0xcafecafe
	sesparse-header|ses|hdr=vmagic:0xCAFEBABE|SEsparse volatile header at file sector 1 begins with 0xcafebabe, not 0xcafecafe
	sesparse-header|ses|hdr=vmagic:0xCAFECAFD|SEsparse volatile header at file sector 1 begins with 0xcafecafd, not 0xcafecafe
	sesparse-header|ses|hdr=vmagic:0xCAFECAFF|SEsparse volatile header at file sector 1 begins with 0xcafecaff, not 0xcafecafe
	sesparse-header|ses|hdr=replay:1|(1) before anyone can read the file: power the VM off cleanly on the ESXi host, or consolidate
	sesparse-header|ses|hdr=replay:0x100000000|journal has to be replayed (4294967296)
	sesparse-header|ses|hdr=vpad:1|SEsparse volatile header: bytes 32 to 511 are not zero
	sesparse-header|ses|poke=511:1:1|bytes 208 to 511 are not zero
	sesparse-header|ses|poke=1023:1:128|SEsparse volatile header: bytes 32 to 511 are not zero
	sesparse-header|ses|hdr=gdsize:1 hdr=capacity:2097153|a grain directory of 1 sector, but 65 tables need 2
	sesparse-entry|ses|gde=0:1|directory entry 0 is 0x0000000000000001
	sesparse-entry|ses|gde=0:2|directory entry 0 is 0x0000000000000002
	sesparse-entry|ses|gde=0:0xFFFFFFFF|directory entry 0 is 0x00000000ffffffff
	sesparse-entry|ses|gde=0:0x0FFFFFFFFFFFFFFF|directory entry 0 is 0x0fffffffffffffff
	sesparse-entry|ses|gde=0:0x1000000000000020|directory entry 0 names table 32, but there is room for 32
	sesparse-entry|ses|gde=0:0x10000000FFFFFFFF|directory entry 0 names table 4294967295, but there is room for 32
	sesparse-entry|ses|gde=0:0x1000000100000000|directory entry 0 is 0x1000000100000000
	sesparse-entry|ses|gde=0:0x1000000100000001|directory entry 0 is 0x1000000100000001
	sesparse-entry|ses|gde=0:0x1800000000000000|directory entry 0 is 0x1800000000000000
	sesparse-entry|ses|gde=0:0x2000000000000000|directory entry 0 is 0x2000000000000000
	sesparse-entry|ses|gde=0:0x3000000000000000|directory entry 0 is 0x3000000000000000
	sesparse-entry|ses|gde=0:0x9000000000000000|directory entry 0 is 0x9000000000000000
	sesparse-entry|ses|gde=0:0xF000000000000000|directory entry 0 is 0xf000000000000000
	sesparse-entry|ses|gde=0:0xFFFFFFFFFFFFFFFF|directory entry 0 is 0xffffffffffffffff
	sesparse-entry|ses|gde=0:0x1000000000000001|grain table 1 at file sector 6208 lies on sectors of another
	sesparse-entry|ses|gde=1:0x1000000000000000|grain table 1 at file sector 6144 lies on sectors of another
	sesparse-entry|ses|gte=1:0x4001000000000000|table entry of grain 1 is 0x4001000000000000
	sesparse-entry|ses|gte=1:0x5001000000000000|table entry of grain 1 is 0x5001000000000000
	sesparse-entry|ses|gte=1:0x6001000000000000|table entry of grain 1 is 0x6001000000000000
	sesparse-entry|ses|gte=1:0x7001000000000000|table entry of grain 1 is 0x7001000000000000
	sesparse-entry|ses|gte=1:0x8001000000000000|table entry of grain 1 is 0x8001000000000000
	sesparse-entry|ses|gte=1:0x9001000000000000|table entry of grain 1 is 0x9001000000000000
	sesparse-entry|ses|gte=1:0xA001000000000000|table entry of grain 1 is 0xa001000000000000
	sesparse-entry|ses|gte=1:0xB001000000000000|table entry of grain 1 is 0xb001000000000000
	sesparse-entry|ses|gte=1:0xC001000000000000|table entry of grain 1 is 0xc001000000000000
	sesparse-entry|ses|gte=1:0xD001000000000000|table entry of grain 1 is 0xd001000000000000
	sesparse-entry|ses|gte=1:0xE001000000000000|table entry of grain 1 is 0xe001000000000000
	sesparse-entry|ses|gte=1:0xF001000000000000|table entry of grain 1 is 0xf001000000000000
	sesparse-entry|ses|gte=1:1|table entry of grain 1 is 0x0000000000000001
	sesparse-entry|ses|gte=1:0x1000|table entry of grain 1 is 0x0000000000001000
	sesparse-entry|ses|gte=1:0x0001000000000000|table entry of grain 1 is 0x0001000000000000
	sesparse-entry|ses|gte=1:0x0FFF000000000000|table entry of grain 1 is 0x0fff000000000000
	sesparse-entry|ses|gte=1:0x0FFFFFFFFFFFFFFF|table entry of grain 1 is 0x0fffffffffffffff
	sesparse-entry|ses|gte=1:0x3FFFFFFFFFFFFFFF|grain 1 has index 1152921504606846975
	sesparse-entry|ses|gte=1:0x3000FFFFFFFFFFFF|grain 1 has index 1152921504606842880
	sesparse-entry|ses|gte=1:0x3000000000000001|grain 1 at file sector 45056 lies outside
	sesparse-entry|ses|gte=1:0x3006000000000000|grain 1 at file sector 12336 lies outside
	sesparse-entry|ses|gte=1:0x3000000000000000|grain 1 at file sector 12288 lies on sectors of another
	sesparse-entry|ses|gte=last:0x3000000000000000|grain 4124 at file sector 12288 lies on sectors of another
	sesparse-entry|ses|gte=4096:0x3001000000000000|grain 4096 at file sector 12296 lies on sectors of another
	sesparse-entry|ses|gte=0:0x3005000000000000|grain 4124 at file sector 12328 lies on sectors of another
	sesparse-entry|ses|gte=last:0x4000000000000000|table entry of grain 4124 is 0x4000000000000000
	sesparse-entry|ses|gte=4000:0xF000000000000000|table entry of grain 4000 is 0xf000000000000000
	END
}

# make_image RECIPE FILE [MORE...]
make_image() {
	local -a made

	read -ra made <<<"$(recipe "$1")"
	"$MKVMDK" "${made[0]}" "$2" "${made[@]:1}" "${@:3}"
}

# A target large enough for every recipe, and a copy of it.
make_target() {
	"$MKVMDK" pattern t 66000 99
	cp t t.orig
}

# refused FILE WORDS [OPTION...]: exit 2, one line, the target as before.
refused() {
	local file=$1 words=$2 code=0 line

	timeout 120 "$VMDKSYNC" "${@:3}" "$file" t >out 2>err || code=$?
	grep -v '^vmdksync: warning: ' err >lines || :
	line=$(<lines)
	echo "$code: $line"
	if [ "$code" != 2 ] || [ -s out ] || [ "$(wc -l <lines)" != 1 ] ||
		[[ $line != "vmdksync: $file: "*"$words"* ]]; then
		echo "  WRONG: expected exit 2 and: $words"
		return 1
	fi
	same t t.orig
}

# applied FILE WARNING [OPTION...]: exit 0, that warning (if any), nothing on stdout.
applied() {
	local code=0

	timeout 120 "$VMDKSYNC" "${@:3}" "$1" t >out 2>err || code=$?
	echo "$code: $(<err)"
	[ "$code" = 0 ] && [ ! -s out ] || return 1
	if [ -n "$2" ]; then
		grep -F "vmdksync: warning: $1: " err | grep -qF -- "$2"
	else
		run ! grep warning err
	fi
}

# refuse_group GROUP: every row of it.
refuse_group() {
	local group recipe damage words n=0 bad=0
	local -a keys

	make_target
	while IFS='|' read -r group recipe damage words; do
		n=$((n + 1))
		read -ra keys <<<"$damage"
		echo "$recipe $damage"
		make_image "$recipe" d.vmdk "${keys[@]}" || bad=$((bad + 1))
		if ! refused d.vmdk "$words"; then
			bad=$((bad + 1))
			cp t.orig t
		fi
		rm -f d.vmdk
	done < <(rows | grep "^$1|")
	echo "$n rows, $bad bad"
	[ "$n" -ge 20 ] && [ "$bad" = 0 ]
}

# What a reader has to validate, as the format notes number it (their table of fields), and the tests
# that see to it. A test below holds the names against the files.
field_table() {
	grep -v '^#' <<-'END'
	# V1 file size: no shorter than the header, no short reads
	V1|damage|COWD cut off
	V1|damage|hosted cut off
	V1|damage|SEsparse cut off
	V1|stream|what a cut file lacks is found before the first write
	# V2 magic, version, flags
	V2|damage|COWD header fields
	V2|damage|hosted header fields
	V2|damage|SEsparse header fields
	V2|damage|bits and sizes that have no meaning for the reader
	# V3, V4 capacity: 0, huge; V5 grain size; V6 entries a table
	V3|damage|COWD header fields
	V3|damage|hosted header fields
	V3|damage|SEsparse header fields
	V4|damage|COWD header fields
	V4|damage|hosted header fields
	V4|damage|SEsparse header fields
	V5|damage|COWD header fields
	V5|damage|hosted header fields
	V5|damage|SEsparse header fields
	V6|damage|hosted header fields
	# V7 what a table covers is counted in 64 bits
	V7|damage|bits and sizes that have no meaning for the reader
	# V8 directory entries meet a limit, and the file, before memory
	V8|damage|COWD header fields
	V8|damage|hosted header fields
	V8|damage|SEsparse header fields
	# V9, V10 where the directories are; V11 overhead; V12 embedded descriptor
	V9|damage|COWD header fields
	V9|damage|hosted header fields
	V9|damage|SEsparse header fields
	V10|damage|hosted header fields
	V10|damage|one directory is out of range, overlaps or is cut off: --force reads by the other alone
	V11|damage|hosted header fields
	V12|damage|hosted header fields
	# V13 directory entries; V14 table entries; V15 grains twice
	V13|damage|COWD directory and table entries
	V13|damage|hosted directory and table entries
	V13|damage|SEsparse directory and table entries
	V14|damage|COWD directory and table entries
	V14|damage|hosted directory and table entries
	V14|damage|SEsparse directory and table entries
	V14|stream|damage that tables and markers show is found before the first write
	V15|damage|COWD directory and table entries
	V15|damage|hosted directory and table entries
	V15|damage|SEsparse directory and table entries
	# V16 entries beyond the last grain; V17 free sector; V18 unclean, journal
	V16|damage|odd, but applied with a warning; --strict refuses
	V17|damage|odd, but applied with a warning; --strict refuses
	V18|damage|odd, but applied with a warning; --strict refuses
	V18|damage|SEsparse header fields
	# V19 to V21 markers: sizes, places, counts; V22 what unpacks
	V19|stream|damage that tables and markers show is found before the first write
	V19|stream|broken markers are found before the first write where they lead
	V20|stream|damage that tables and markers show is found before the first write
	V20|stream|broken markers are found before the first write where they lead
	V21|stream|broken markers are found before the first write where they lead
	V22|stream|damage that only unpacking shows
	# V23 areas of SEsparse
	V23|damage|SEsparse header fields
	# V24 descriptor: limits, every line; V25 sizes of extents
	V24|descriptors|at the limits: 4096 extents, a line of 4096 bytes, 1 MiB of text
	V24|descriptors|extent lines that are not understood
	V24|descriptors|header keys that contradict or cannot be
	V25|descriptors|an extent whose own size is not that of its line
	V25|descriptors|an embedded descriptor: another size, several extents, a damaged one
	# V26 paths; V27 chains
	V26|descriptors|files listed that are too short, missing, or something else
	V26|formats|an extent of the descriptor is no target
	V26|guards|the delta itself, a hard link and a symlink to it
	V26|chain|--confine: neither names nor symbolic links lead out
	V27|chain|a parent that is missing, is not named, or is a loop
	V27|chain|a parent with another CID is refused, or taken with --force=cid
	V27|chain|a chain of 255 images is read, one more is refused
	# V28 target; V29 input and output
	V28|guards|a missing target
	V28|guards|a read-only file, even for root
	V28|guards|too small by one sector, or by one byte
	V29|cli|unit tests
	V29|faults|errors of single calls, one after the other
	V29|faults|an input that becomes shorter while it is read
	V29|faults|EIO from fdatasync is no success
	V29|faults|EINTR is no error, wherever it comes from
	END
}

@test "every row of the table of fields has tests, and these are there" {
	for ((i = 1; i <= 29; i++)); do
		field_table | grep -q "^V$i|"
	done
	while IFS='|' read -r row file name; do
		echo "$row: $file.bats: $name"
		grep -qF "@test \"$name\" {" "$TOP/tests/$file.bats"
	done < <(field_table)
}

@test "there are at least 100 damaged images, all different, each in a group that is tested" {
	run -0 rows
	[ "${#lines[@]}" -ge 100 ]
	[ "$(rows | cut -d'|' -f2,3 | sort | uniq -d | wc -l)" = 0 ]
	while read -r group; do
		grep -q "refuse_group $group\$" "$BATS_TEST_FILENAME"
	done < <(rows | cut -d'|' -f1 | sort -u)
}

@test "COWD cut off" {
	refuse_group cowd-cut
}

@test "COWD directory and table entries" {
	refuse_group cowd-entry
}

# bats test_tags=quick
@test "COWD header fields" {
	refuse_group cowd-header
}

@test "hosted cut off" {
	refuse_group hosted-cut
}

# bats test_tags=quick
@test "hosted directory and table entries" {
	refuse_group hosted-entry
}

@test "hosted header fields" {
	refuse_group hosted-header
}

@test "SEsparse cut off" {
	refuse_group sesparse-cut
}

# bats test_tags=quick
@test "SEsparse directory and table entries" {
	refuse_group sesparse-entry
}

@test "SEsparse header fields" {
	refuse_group sesparse-header
}

@test "a COWD file cut at any odd place" {
	make_target
	make_image cowd whole
	for ((at = 5; at < 55296; at += 1371)); do
		head -c "$at" whole >d.vmdk
		refused d.vmdk ''
	done
}

@test "undamaged, each recipe applies as the model says" {
	make_target
	for r in cowd cowd1 cowd8 hosted hosted0 hosted8 ses; do
		cp t.orig t
		cp t.orig want
		make_image "$r" d.vmdk apply=want
		vs -q d.vmdk t
		same t want
		run ! cmp -s t t.orig
	done
}

# odd RECIPE WARNING KEY...: applied with that warning as the sound image would be; not with --strict.
odd() {
	cp t.orig t
	cp t.orig want
	make_image "$1" d.vmdk "${@:3}" apply=want
	refused d.vmdk "$2" --strict
	applied d.vmdk "$2"
	same t want
	cp t.orig t
	vs -q d.vmdk t 2>err
	[ ! -s err ]
	same t want
}

@test "odd, but applied with a warning; --strict refuses" {
	make_target
	odd cowd 'unclean-shutdown flag' unclean=1
	odd cowd 'unclean-shutdown flag' hdr=unclean:0x1000000
	odd hosted 'unclean-shutdown flag' unclean=1
	odd cowd 'grain table 0 at file sector 5 lies beyond the last sector in use by the header (5)' \
		hdr=free:5
	odd cowd 'grain 9999 at file sector 107 lies beyond the last sector' hdr=free:107
	odd cowd8 'COWD grain size is 8 sectors'
	odd cowd 'grain 7 has table entry 1' zero=7
	odd cowd 'grain table 2 has entries for grains beyond the end' gte=10000:eof
	odd cowd 'the grain directory has an entry for a table beyond the end' hdr=gdes:4 poke=gdend:4:5
	odd hosted 'grain table 1 has entries for grains beyond the end' gte=516:eof rgte=516:eof
	odd hosted0 'lies before the first grain of the header' hdr=overhead:eof
	odd ses 'names table 1, which the header calls unused (from 1 on)' hdr=freegt:1
	odd ses 'grain table 1 has entries for grains beyond the end' gte=4125:0xffffffffffffffff
	odd ses 'directory has entries for tables beyond the end' poke=gd+16:8:1
	odd ses 'the journal header lies at 3 (2 is usual)' hdr=jhoff:3
	odd ses 'the sectors of the journal are 0 (2048 is usual)' hdr=jsize:0
	odd ses 'the sectors of the volatile header are 2 (1 is usual)' hdr=vhsize:2
	odd hosted8 'grain size is 2 sectors (128 is usual)' grain=2
	odd hosted '256 entries a grain table (512 is usual)' gtes=256
}

@test "bits and sizes that have no meaning for the reader" {
	make_target
	cp t.orig want
	make_image hosted d.vmdk apply=want
	# flags of the compatible half; redundant directory anywhere once its flag is gone
	for keys in hdr=flags:0xb hdr=flags:0x8003 hdr=flags:0xfffb 'hdr=flags:1 hdr=rgd:0xffffffffffffffff' \
		'hdr=flags:1 hdr=rgd:gd' hdr=version:2 hdr=version:3 'hdr=flags:2 hdr=nl1:0x0d'; do
		echo "--- $keys"
		cp t.orig t
		# shellcheck disable=SC2086 # words are meant
		make_image hosted d.vmdk $keys
		applied d.vmdk ''
		same t want
	done
	# one table that covers 64 GiB
	cp t.orig t
	cp t.orig want
	"$MKVMDK" hosted d.vmdk capacity=66000 grain=32768 gtes=4096 alloc=0,last apply=want
	vs -q d.vmdk t
	same t want
}

@test "fewer sectors than the file has room for, one more directory entry, no slack at the end" {
	make_target
	cp t.orig want
	make_image cowd d.vmdk apply=want hdr=gdes:4
	applied d.vmdk ''
	same t want
	cp t.orig t
	make_image hosted d.vmdk cut=grain:last+40960
	cp t.orig want
	make_image hosted d.vmdk apply=want cut=grain:last+40960
	applied d.vmdk ''
	same t want
}

# grain 0 of the disk, 64 KiB, is taken from $2 into $1
take_grain_0() {
	dd if="$2" of="$1" bs=64K count=1 conv=notrunc status=none
}

@test "copies of a table that differ: --force says which one is believed" {
	make_target
	cp t.orig whole
	make_image hosted d.vmdk apply=whole
	cp whole without
	take_grain_0 without t.orig
	for damage in gte=0:0 rgte=0:0; do
		make_image hosted d.vmdk "$damage"
		refused d.vmdk '--force=gd'
		refused d.vmdk '--force=rgd'
		first=whole redundant=without
		[ "$damage" = rgte=0:0 ] || first=without redundant=whole
		vs -q --force=gd d.vmdk t
		same t "$first"
		cp t.orig t
		vs -q --force=rgd d.vmdk t
		same t "$redundant"
		cp t.orig t
	done
}

@test "copies of a directory that differ: --force says which one is believed" {
	make_target
	cp t.orig whole
	make_image hosted d.vmdk apply=whole
	make_image hosted d.vmdk gde=0:0
	cp whole second
	dd if=t.orig of=second bs=64K count=512 conv=notrunc status=none
	refused d.vmdk 'directory entry 0 and its redundant copy'
	# the one that is 0 is damaged in any case, and not offered
	[[ $(<err) == *--force=rgd* && $(<err) != *--force=gd* ]]
	refused d.vmdk 'directory entry 0 is 0' --force=gd
	vs -q --force=gd --force=accounts d.vmdk t
	same t second
	cp t.orig t
	vs -q --force=rgd d.vmdk t
	same t whole
	cp t.orig t
	make_image hosted d.vmdk rgde=0:0
	refused d.vmdk 'directory entry 0 and its redundant copy'
	[[ $(<err) == *--force=gd* && $(<err) != *--force=rgd* ]]
	vs -q --force=gd d.vmdk t
	same t whole
}

@test "a ruined directory: the redundant one recovers the disk, or the other way round" {
	make_target
	cp t.orig whole
	make_image hosted d.vmdk apply=whole
	make_image hosted d.vmdk gde=0:0xFFFFFFFF gde=1:1
	refused d.vmdk 'grain table 0 at file sector 4294967295'
	refused d.vmdk 'grain table 0 at file sector 4294967295' --force=gd
	vs -q --force=rgd d.vmdk t
	same t whole
	cp t.orig t
	make_image hosted d.vmdk rgde=0:0xFFFFFFFF rgde=1:1
	refused d.vmdk 'grain table 0 at file sector 4294967295'
	refused d.vmdk 'grain table 0 at file sector 4294967295' --force=rgd
	vs -q --force=gd d.vmdk t
	same t whole
}

@test "one directory is out of range, overlaps or is cut off: --force reads by the other alone" {
	make_target
	cp t.orig whole
	make_image hosted d.vmdk apply=whole
	for place in 0 1 20 30 eof eof+1 0x7fffffffffffffff 0xffffffffffffffff; do
		for field in gd rgd; do
			echo "--- $field:$place"
			# the directory at its own place is no damage
			[ "$field:$place" != gd:30 ] || continue
			other=rgd
			[ "$field" = gd ] || other=gd
			make_image hosted d.vmdk "hdr=$field:$place"
			refused d.vmdk ''
			# the redundant one at the place of the first is the first
			[ "$field:$place" = rgd:30 ] || refused d.vmdk '' "--force=$field"
			vs -q "--force=$other" d.vmdk t
			same t whole
			cp t.orig t
		done
	done
	make_image hosted d.vmdk hdr=gd:eof+1
	refused d.vmdk '--force=rgd'
	make_image hosted d.vmdk hdr=rgd:eof+1
	refused d.vmdk '--force=gd'
}

@test "a compressed disk whose directory is out of range: --force=rgd" {
	"$MKVMDK" pattern t 66000 99
	cp t t.orig
	cp t want
	"$MKVMDK" stream d.vmdk variant=C rgd=1 capacity=66000 alloc=0,1,512,last apply=want
	for place in 0 1 eof+1 0xffffffffffffffff; do
		"$MKVMDK" stream d.vmdk variant=C rgd=1 capacity=66000 alloc=0,1,512,last \
			"hdr=gd:$place"
		vs -q --force=rgd d.vmdk t
		same t want
		cp t.orig t
	done
}

@test "--force=rgd without a redundant directory" {
	make_target
	make_image hosted0 d.vmdk
	refused d.vmdk 'has no redundant grain directory' --force=rgd
}

@test "files that are no delta are called by their name" {
	make_target
	printf '# Disk DescriptorFile\nversion=1\nCID=fffffffe\n' >text.vmdk
	refused text.vmdk 'lists no extent'
	make_image hosted d.vmdk
	{ printf kdmv; tail -c +5 d.vmdk; } >unfinished.vmdk
	refused unfinished.vmdk 'is unfinished'
	{ printf '\242\162\031\366'; head -c 4096 /dev/zero; } >x-ctk.vmdk
	refused x-ctk.vmdk 'is a changed-block-tracking file'
	make_image hosted d.vmdk
	gzip -c d.vmdk >d.gz
	refused d.gz 'is compressed with gzip'
	tar cf d.ova d.vmdk
	refused d.ova 'is a tar archive'
	: >empty
	refused empty 'is empty (0 bytes)'
	echo 'The quick brown fox jumps over the lazy dog.' >fox
	refused fox 'is not a recognized VMDK (it begins with the text "The quick brown fox jump", in 45 bytes)'
	head -c 100000 /dev/zero >zeros
	refused zeros 'is not a recognized VMDK (it begins with 00 00 00 00'
}

@test "images of qemu-img that are no delta are called by their name" {
	requires qemu-img
	make_target
	qemu-img create -q -f qcow2 q.qcow2 1M
	refused q.qcow2 'is a qcow2 image'
	if qemu-img create -q -f vpc q.vhd 4M; then
		refused q.vhd 'is a VHD image'
	fi
	if qemu-img create -q -f vhdx q.vhdx 4M; then
		refused q.vhdx 'is a VHDX image'
	fi
	if qemu-img create -q -f vdi q.vdi 1M; then
		refused q.vdi 'is a VDI image'
	fi
	printf 'QED\0%01000d' 0 >q.qed
	refused q.qed 'is a QED image, not a VMDK'
}
